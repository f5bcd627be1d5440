"""A pool's snapshot, and the doctor's judgement."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import pytest

from roost._run import Completed
from roost.engines.base import Engine, EngineInfo
from roost.errors import EngineError, EngineUnavailable
from roost.observe import (
    Diagnosis,
    Finding,
    JobTotals,
    NodeProbe,
    SlotView,
    Snapshot,
    collect,
    examine,
    snapshot,
)
from roost.observe.snapshot import running
from roost.plan import NodeState, Observed, ObservedNode, Ref
from roost_node.vocab import Role

INFO = EngineInfo("docker", "20.10", 2, 2**32, "1", rootless=False)
TOTALS = {"AllusersJobs": 3, "AllusersIdle": 2, "AllusersRunning": 1, "MyType": "Summary"}
WHOLE: dict[str, Any] = {
    "Name": "slot1@p-ex-1", "Machine": "p-ex-1", "State": "Unclaimed", "Activity": "Idle",
    "Cpus": 1, "Memory": 896, "TotalSlotCpus": 2.0, "TotalSlotMemory": 1024,
    "PartitionableSlot": True,
}  # fmt: skip
PART: dict[str, Any] = {
    "Name": "slot1_1@p-ex-1", "Machine": "p-ex-1", "State": "Claimed", "Activity": "Busy",
    "Cpus": 1, "Memory": 128, "TotalSlotCpus": 1, "TotalSlotMemory": 128, "DynamicSlot": True,
    "RemoteOwner": "john@p.internal", "JobId": "7.0",
}  # fmt: skip
GIB = 2**30


def _node(name: str, role: Role, state: NodeState = "running", **more: Any) -> ObservedNode:
    return ObservedNode(f"p-{name}", role, name, "image", "spec", state, "healthy", **more)


POOL = Observed(
    "p", nodes=(_node("master", "master"), _node("submit", "submit"), _node("ex-1", "execute"))
)


def _with(node: ObservedNode) -> Observed:
    return replace(POOL, nodes=tuple(node if old.name == node.name else old for old in POOL.nodes))


@dataclass
class Pool:
    """An engine whose nodes answer each tool with a fixed status and text."""

    observed: Observed
    answers: dict[str, tuple[int, str]]
    log: Sequence[str] = ()
    down: bool = False

    def info(self) -> EngineInfo:
        if self.down:
            raise EngineUnavailable("the Docker daemon does not run")
        return INFO

    def observe(self, pool: str) -> Observed:
        return self.observed

    def has_image(self, image: str) -> bool:
        return False

    def logs(self, ref: Ref, *, follow: bool = False, tail: int | None = None) -> Iterator[str]:
        yield from self.log

    def exec(
        self,
        ref: Ref,
        argv: Sequence[str],
        *,
        user: str | None = None,
        stdin: bytes = b"",
        timeout: float | None = None,
    ) -> Completed:
        if argv[0] not in self.answers:
            raise EngineError(f"{ref.name} is not running")
        status, text = self.answers[argv[0]]
        return Completed(tuple(argv), status, text.encode() if status == 0 else b"",
                         "" if status == 0 else text)  # fmt: skip


def _engine(observed: Observed = POOL, **more: Any) -> Engine:
    answers = {
        "condor_status": (0, json.dumps([PART, WHOLE])),
        "condor_q": (0, json.dumps([TOTALS])),
        "roost-node": (0, ""),
    }
    return cast(Engine, Pool(observed, answers | more.pop("answers", {}), **more))


def test_a_snapshot_holds_nodes_slots_and_jobs() -> None:
    seen = snapshot(_engine(), "p")
    assert [node.name for node in seen.nodes] == ["p-master", "p-submit", "p-ex-1"]
    assert seen.slots is not None
    assert [(slot.name, slot.kind, slot.user, slot.job) for slot in seen.slots] == [
        ("slot1@p-ex-1", "partitionable", "", ""),
        ("slot1_1@p-ex-1", "dynamic", "john", "7.0"),
    ]
    assert seen.jobs == JobTotals(jobs=3, idle=2, running=1)
    assert seen.cpus == (1.0, 2.0)
    assert (seen.no_slots, seen.no_jobs) == ("", "")


def test_a_snapshot_is_plain_json() -> None:
    said = json.loads(json.dumps(snapshot(_engine(), "p").to_json()))
    assert said["slots"][1]["state"] == "Claimed"
    assert said["nodes"][0]["role"] == "master"


@pytest.mark.parametrize(
    ("observed", "answers", "reason"),
    [
        (_with(_node("master", "master", "exited", exit_code=3)), {},
         "p-master is not running but exited with code 3"),
        (replace(POOL, nodes=POOL.nodes[1:]), {}, "the pool p has no master node"),
        (POOL, {"condor_status": (1, "Error: communication error\nCEDAR:6001:Failed")},
         "condor_status on p-master failed: Error: communication error CEDAR:6001:Failed"),
    ],
)  # fmt: skip
def test_without_a_master_a_snapshot_says_why_there_are_no_slots(
    observed: Observed, answers: dict[str, tuple[int, str]], reason: str
) -> None:
    seen = snapshot(_engine(observed, answers=answers), "p")
    assert seen.slots is None
    assert seen.no_slots == reason
    assert seen.jobs is not None


def test_a_static_slot_in_use_counts_whole() -> None:
    static = SlotView.of(WHOLE | {"PartitionableSlot": False, "State": "Claimed", "Cpus": 2})
    assert Snapshot("p", (), (static,), None).cpus == (2.0, 2.0)


SEEN = Snapshot("p", (), (SlotView.of(WHOLE),), JobTotals())
WELL = Diagnosis("p", INFO, observed=POOL, snapshot=SEEN)


def _only(facts: Diagnosis) -> Finding:
    (finding,) = examine(facts)
    return finding


def _probed(**probe: Any) -> Diagnosis:
    return replace(WELL, probes={"p-ex-1": NodeProbe(**probe)})


def test_a_healthy_pool_has_no_findings() -> None:
    assert examine(WELL) == ()


def test_an_engine_that_does_not_answer_is_all_there_is_to_say() -> None:
    found = _only(Diagnosis("p", None, "the Docker daemon does not run"))
    assert (found.severity, found.what, found.where) == (
        "error", "the Docker daemon does not run", "engine",
    )  # fmt: skip


def test_limits_that_do_not_hold_without_root() -> None:
    found = _only(replace(WELL, engine=replace(INFO, rootless=True)))
    assert (found.severity, found.where) == ("warning", "engine")
    assert "cgroup v1, where no limit" in found.what
    assert examine(replace(WELL, engine=replace(INFO, rootless=True, cgroup="2"))) == ()


def test_no_pool() -> None:
    assert "no pool 'p'" in _only(replace(WELL, observed=Observed("p"))).what


def test_a_node_that_ended_says_its_code_and_last_words() -> None:
    ended = _with(_node("ex-1", "execute", "exited", exit_code=3))
    facts = replace(WELL, observed=ended, probes={"p-ex-1": NodeProbe(last_log="master died")})
    assert _only(facts).what == "it does not run: exited with code 3; its last words: master died"


def test_a_node_that_was_started_again_says_how_often_and_why() -> None:
    again = _with(_node("ex-1", "execute", restarts=3, started="2026-11-24T02:16:02.1Z"))
    facts = replace(WELL, observed=again, probes={"p-ex-1": NodeProbe(last_log="it was killed")})
    assert (_only(facts).severity, _only(facts).what) == (
        "warning",
        "it ended and was started again 3 times, the last time at 2026-11-24T02:16; "
        "before the last time it said: it was killed",
    )


def test_why_a_node_ended_is_in_its_log() -> None:
    log = [
        "roost | 11/24/26 02:16:02 condor_master was killed; the container ends",
        "startd | 11/24/26 02:16:02 condor_master ended",
        "roost | 11/24/26 02:16:04 p-ex-1: execution point of p-master",
    ]
    again = _with(_node("ex-1", "execute", restarts=1))
    engine = _engine(again, log=log, answers={"python3": (1, "no")})
    probe = collect(engine, "p").probes["p-ex-1"]
    assert probe.last_log == "condor_master was killed; the container ends"


def test_a_node_says_why_it_is_unhealthy() -> None:
    found = _only(_probed(unhealthy="the collector has no ad of this node"))
    assert (found.where, found.severity) == ("p-ex-1", "error")


def test_an_executor_without_slots() -> None:
    facts = replace(WELL, snapshot=replace(SEEN, slots=()))
    assert _only(facts).what == "it runs, but the collector has no slot of it"


def test_a_collector_that_does_not_answer_is_the_masters() -> None:
    facts = replace(WELL, snapshot=replace(SEEN, slots=None, no_slots="no route"))
    assert (_only(facts).what, _only(facts).where) == ("no route", "p-master")


@pytest.mark.parametrize(
    ("probe", "severity", "words"),
    [
        ({"clock_off": 61.0}, "warning", "its clock is 61 s ahead of this machine's"),
        ({"clock_off": -7.5}, "warning", "its clock is 8 s behind this machine's"),
        ({"certificate_days": 1.2}, "warning", "its certificate expires in 29 hours"),
        ({"certificate_days": -1.0}, "error", "its certificate has expired"),
        ({"disks": {"/var/log/condor": (100 * GIB, 4 * GIB)}}, "warning", "only 4096 MiB"),
        ({"disks": {"/var/log/condor": (8 * GIB, GIB // 2)}}, "warning", "in /var/log/condor"),
        ({"cgroup": False}, "note", "HTCondor cannot write cgroups here"),
    ],
)
def test_what_a_probe_shows(probe: dict[str, Any], severity: str, words: str) -> None:
    found = _only(_probed(**probe))
    assert found.severity == severity
    assert words in found.what


def test_what_a_probe_shows_when_all_is_well() -> None:
    well = {"clock_off": 4.0, "certificate_days": 3.0, "cgroup": True,
            "disks": {"/var/log/condor": (100 * GIB, 50 * GIB)}}  # fmt: skip
    assert examine(_probed(**well)) == ()


def _seen(**slot: Any) -> Diagnosis:
    return replace(WELL, snapshot=replace(SEEN, slots=(SlotView.of(WHOLE | slot),)))


def test_a_sick_executor_is_named_with_its_own_reason() -> None:
    found = _only(_seen(RoostSick=True, RoostSickReason="its last 5 jobs failed", RoostFailing=5))
    assert (found.severity, found.where) == ("error", "p-ex-1")
    assert "it is sick and takes no more jobs since " in found.what
    assert found.what.endswith(": its last 5 jobs failed")


def test_an_executor_whose_jobs_fail_without_a_comparison_is_noted() -> None:
    found = _only(_seen(RoostSick=False, RoostSickReason="", RoostFailing=7))
    assert (found.severity, found.where) == ("note", "p-ex-1")
    assert found.what.startswith("its last 7 jobs all failed within seconds")


def test_one_full_disk_is_told_once() -> None:
    full = (100 * GIB, 0)
    assert _only(_probed(disks={"/a": full, "/b": full})).what.endswith("in /a")


def test_held_jobs_are_counted_by_reason() -> None:
    found = examine(replace(WELL, held={"no file r": 1, "too much memory": 12}))
    assert [finding.what for finding in found] == [
        "12 jobs are held: too much memory", "1 job is held: no file r",
    ]  # fmt: skip


def test_errors_come_first() -> None:
    facts = replace(
        WELL,
        missing_images=("image",),
        probes={"p-ex-1": NodeProbe(unhealthy="no", cgroup=False)},
    )
    assert [finding.severity for finding in examine(facts)] == ["error", "warning", "note"]


def test_collect_asks_the_engine_the_nodes_and_the_queue() -> None:
    probe = {"clock": 1.0, "disks": {"/a": [10, 5]}, "certificate_ends": 86401.0, "cgroup": True}
    held = [{"HoldReasonCode": 12, "HoldReason": f"slot {number}"} for number in (1, 2)]
    answers = {
        "python3": (0, json.dumps(probe)),
        "roost-node": (1, "the collector knows no negotiator yet"),
        "condor_q": (0, json.dumps(held)),
    }
    stopped = _with(_node("ex-1", "execute", "exited", exit_code=3))
    facts = collect(_engine(stopped, answers=answers, log=["first", "last", ""]), "p")
    assert facts.engine == INFO
    assert facts.missing_images == ("image",)
    assert facts.probes["p-ex-1"].last_log == "last"
    master = facts.probes["p-master"]
    assert master.unhealthy == "the collector knows no negotiator yet"
    assert (master.certificate_days, master.disks, master.cgroup) == (1.0, {"/a": (10, 5)}, True)
    assert master.clock_off is not None
    assert master.clock_off < -1e9, "its clock stands in 1970"
    assert facts.held == {"slot 1": 2}, "one kind, with the first as its example"


def test_collect_without_an_engine() -> None:
    facts = collect(_engine(down=True), "p")
    assert (facts.engine, facts.engine_error) == (None, "the Docker daemon does not run")


def test_a_node_that_refuses_is_part_of_the_answer() -> None:
    broken = cast(Engine, Pool(POOL, {}))
    facts = collect(broken, "p")
    assert facts.probes["p-ex-1"].unhealthy == "it does not answer: p-ex-1 is not running"
    assert facts.snapshot is not None
    assert facts.snapshot.no_slots == "p-master is not running"
    assert facts.held == {}


TWO = replace(
    POOL, nodes=(_node("master", "master", started="2"), _node("master-2", "master", started="1"),
                 *POOL.nodes[1:])
)  # fmt: skip


def _masters(observed: Observed, **stands_by: bool) -> Diagnosis:
    both = ("p-master", "p-master-2")
    probes = {
        f"p-{name.replace('_', '-')}": NodeProbe(masters=both, stands_by=waits)
        for name, waits in stands_by.items()
    }
    return replace(WELL, observed=observed, probes=probes)


def test_of_two_masters_the_active_one_is_named() -> None:
    found = _only(_masters(TWO, master=True, master_2=False))
    assert (found.severity, found.where) == ("note", "p-master-2")
    assert found.what == "it is the active one of two masters"


def test_a_master_of_two_that_is_missing_is_a_warning() -> None:
    first, note = examine(_masters(POOL, master=False))
    assert (first.severity, first.where) == ("warning", "p-master-2")
    assert "has nobody to take its place" in first.what
    assert note.severity == "note"


def test_the_master_to_ask_has_run_for_longer() -> None:
    assert running(TWO, "master").name == "p-master-2"


def test_a_probe_tells_a_standby() -> None:
    probe = {"clock": 1.0, "disks": {}, "cgroup": True, "masters": ["p-master", "p-master-2"]}
    answers = {"python3": (0, json.dumps(probe)), "roost-node": (0, "standby\n")}
    master = collect(_engine(TWO, answers=answers), "p").probes["p-master"]
    assert (master.stands_by, master.masters) == (True, ("p-master", "p-master-2"))


def test_an_executor_that_cannot_mount_says_which_knob() -> None:
    found = _only(_seen(DataMountsProblem="the container has no /dev/fuse"))
    assert (found.severity, found.where) == ("warning", "p-ex-1")
    assert found.what.endswith("the container has no /dev/fuse")
