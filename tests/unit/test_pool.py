"""Pool over the fake engine: what is made, kept, waited for, undone and said."""

from __future__ import annotations

import tarfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pool_answers import Answers

import roost
from roost import drain, ready
from roost.engines.base import Event
from roost.errors import (
    BadInput,
    EngineError,
    ImageMissing,
    JobError,
    PoolNotFound,
    PoolNotReady,
)
from roost.fit import Load, loads, missing, staying, summary
from roost.logs import telling
from roost.plan import ObservedNode, Ref
from roost.pool import Drained, Pool
from roost.progress import Happened, Stage
from roost.security import PoolKeys
from roost.spec import Execute, HTCondor, Master, PoolSpec, Submit
from roost_node import pki


@pytest.fixture
def answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Answers:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.delenv("ROOST_POOL", raising=False)
    return Answers()


def names(answers: Answers, pool: str = "roost") -> list[str]:
    return [node.name for node in answers.engine.observe(pool).nodes]


def spec(count: int = 2, **more: object) -> PoolSpec:
    return PoolSpec(execute=(Execute(count=count),), **more)  # type: ignore[arg-type]


def executor(name: str, group: str = "cpu") -> ObservedNode:
    return ObservedNode(name, "execute", group, "i", "s", "running", "healthy")


# --- decisions ----------------------------------------------------------------------------------


def test_idle_executors_go_first_and_of_those_the_highest() -> None:
    group = PoolSpec(execute=(Execute(name="cpu", count=2),))
    standing = [executor(f"roost-cpu-{n}") for n in (1, 2, 9, 10)]
    assert staying(group, standing, {}) == {"roost-cpu-1", "roost-cpu-2"}
    busy = {"roost-cpu-10": Load(1, 5)}
    assert staying(group, standing, busy) == {"roost-cpu-1", "roost-cpu-10"}


def test_of_the_busy_those_with_the_fewest_and_youngest_jobs_go_first() -> None:
    group = PoolSpec(execute=(Execute(name="cpu", count=1),))
    standing = [executor(f"roost-cpu-{n}") for n in (1, 2, 3)]
    does = {"roost-cpu-1": Load(1, 90), "roost-cpu-2": Load(2, 5), "roost-cpu-3": Load(2, 60)}
    assert staying(group, standing, does) == {"roost-cpu-3"}
    does["roost-cpu-3"] = Load(2, 60, draining=True)
    assert staying(group, standing, does) == {"roost-cpu-2"}
    standing[1] = replace(standing[1], state="exited")
    assert staying(group, standing, does) == {"roost-cpu-1"}


def test_loads_of_two_answers_count_a_job_once() -> None:
    collector = "p-x-1|7.0|12|false\np-x-2|undefined|0|true\np-x-3|undefined|0|false\n"
    schedd = "slot1_1@p-x-1.example.org|7.0|10|false\nslot1_2@p-x-1|7.1|3|false\nnonsense\n"
    assert loads(collector, schedd, "") == {
        "p-x-1": Load(2, 12), "p-x-2": Load(draining=True), "p-x-3": Load()
    }  # fmt: skip


def test_a_group_that_is_gone_keeps_nobody() -> None:
    busy = {"roost-cpu-1": Load(1, 5)}
    assert staying(PoolSpec(), [executor("roost-cpu-1")], busy) == frozenset()


def test_missing_knows_each_role_by_its_own_ad() -> None:
    wanted = {"p-master": "master", "p-submit": "submit", "p-x-1": "execute"}
    ads = "Negotiator p-master\nScheduler p-submit\nDaemonMaster p-x-1\nStartD p-x-1\n"
    assert missing(wanted, ads) == ["p-x-1"]  # type: ignore[arg-type]
    assert missing(wanted, ads + "Machine slot1@p-x-1.example.org\n") == []  # type: ignore[arg-type]
    assert missing(wanted, "") == list(wanted)  # type: ignore[arg-type]


def test_of_two_masters_each_must_be_known() -> None:
    wanted = {"p-master": "master", "p-master-2": "master"}
    ads = "Negotiator p-master-2\nDaemonMaster p-master-2\n"
    assert missing(wanted, ads) == ["p-master"]  # type: ignore[arg-type]
    assert missing(wanted, ads + "DaemonMaster p-master\n") == []  # type: ignore[arg-type]
    assert missing(wanted, "DaemonMaster p-master\nDaemonMaster p-master-2\n") == list(wanted)  # type: ignore[arg-type]


def test_summary_of_nothing_is_empty() -> None:
    assert summary(()) == ""


# --- up -----------------------------------------------------------------------------------------


def test_up_makes_the_pool_and_runs_a_job(answers: Answers) -> None:
    happened: list[Happened] = []
    pool = Pool.up(spec(), engine=answers.engine, progress=happened.append)
    assert names(answers) == ["roost-execute-1", "roost-execute-2", "roost-master", "roost-submit"]
    assert answers.jobs == 1
    stages = [each.text for each in happened if isinstance(each, Stage)]
    assert stages == [
        "making 1 network, 3 volumes, 4 nodes",
        "waiting until 4 nodes answer",
        "running a first job",
    ]
    assert pool.name == "roost"


def test_up_twice_is_a_no_op(answers: Answers) -> None:
    Pool.up(spec(), engine=answers.engine)
    happened: list[Happened] = []
    Pool.up(spec(), engine=answers.engine, progress=happened.append)
    assert happened == []
    assert answers.jobs == 1


def two_masters(count: int = 2) -> PoolSpec:
    return spec(1, master=Master(count=count))


def masters_told(answers: Answers) -> list[str]:
    """Which nodes were told what their masters are."""
    said = [f"{node}: {argv[2]}" for node, argv in answers.asked if argv[1:2] == ["masters"]]
    answers.asked.clear()
    return sorted(said)


def test_a_second_master_is_told_to_the_nodes_that_stay(answers: Answers) -> None:
    Pool.up(spec(1), engine=answers.engine)
    Pool.up(two_masters(), engine=answers.engine)
    both = "roost-master,roost-master-2"
    assert masters_told(answers) == [f"roost-execute-1: {both}", f"roost-submit: {both}"]
    Pool.up(two_masters(), engine=answers.engine)
    assert masters_told(answers) == []
    Pool.up(two_masters(1), engine=answers.engine)
    assert masters_told(answers) == ["roost-execute-1: roost-master", "roost-submit: roost-master"]
    assert names(answers) == ["roost-execute-1", "roost-master", "roost-submit"]


def test_up_puts_back_a_master_of_two_and_tells_it_the_pace(answers: Answers) -> None:
    Pool.up(spec(60, master=Master(count=2)), engine=answers.engine)
    list(answers.engine.retire([Ref("node", "roost-master-2")]))
    answers.asked.clear()
    Pool.up(spec(60, master=Master(count=2)), engine=answers.engine)
    paced = [node for node, argv in answers.asked if argv[1:2] == ["pace"]]
    assert paced == ["roost-master-2"]


def test_up_with_a_change_touches_nothing_else(answers: Answers) -> None:
    Pool.up(spec(1), engine=answers.engine)
    happened: list[Happened] = []
    Pool.up(spec(2), engine=answers.engine, progress=happened.append)
    touched = {each.ref.name for each in happened if isinstance(each, Event)}
    assert touched == {"roost-execute-2"}


def test_up_without_a_file_is_what_was_asked_for_last(answers: Answers) -> None:
    Pool.up(executors=3, engine=answers.engine)
    Pool.up(engine=answers.engine)
    assert len(names(answers)) == 5


def test_up_as_context_takes_down(answers: Answers, tmp_path: Path) -> None:
    with Pool.up(spec(), engine=answers.engine):
        assert answers.engine.pools() == ["roost"]
    assert not answers.engine.observe("roost")
    assert not (tmp_path / "state/roost/roost").exists()


def test_a_missing_image_makes_nothing(answers: Answers, tmp_path: Path) -> None:
    answers.engine.images = ()
    with pytest.raises(ImageMissing, match="roost image build --release trixie"):
        Pool.up(spec(), engine=answers.engine)
    assert not answers.engine.observe("roost")
    assert not (tmp_path / "state/roost/roost").exists()


@pytest.mark.parametrize("at", range(1, 8))
def test_a_failure_anywhere_leaves_nothing(answers: Answers, tmp_path: Path, at: int) -> None:
    answers.engine.fail_at = at
    with pytest.raises(EngineError, match="told to fail"):
        Pool.up(spec(), engine=answers.engine)
    assert not answers.engine.observe("roost")
    assert not (tmp_path / "state/roost/roost").exists()


def test_a_node_that_ended_fails_at_once_with_its_log(answers: Answers) -> None:
    def die(happened: Happened) -> None:
        if isinstance(happened, Stage) and happened.text.startswith("waiting"):
            answers.engine.say("roost-execute-1", "all is well", "startd | ERROR: no such master")
            answers.engine.end("roost-execute-1", 3)

    with pytest.raises(PoolNotReady) as caught:
        Pool.up(spec(), engine=answers.engine, progress=die)
    assert "roost-execute-1 ended with status 3" in str(caught.value)
    assert "ERROR: no such master" in str(caught.value)
    assert "all is well" not in str(caught.value)
    assert not answers.engine.observe("roost")


def test_a_node_that_is_late_is_named(answers: Answers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ready, "READY_WITHIN", 0.0)
    answers.deaf = {"roost-execute-2"}
    with pytest.raises(PoolNotReady, match="roost-execute-2 did not answer"):
        Pool.up(spec(), engine=answers.engine)
    assert not answers.engine.observe("roost")


def test_a_node_that_is_gone_fails_at_once(answers: Answers) -> None:
    def remove(happened: Happened) -> None:
        if isinstance(happened, Stage) and happened.text.startswith("waiting"):
            list(answers.engine.retire([Ref("node", "roost-execute-1")]))

    with pytest.raises(PoolNotReady, match="roost-execute-1 was removed by somebody else; `roost"):
        Pool.up(spec(), engine=answers.engine, progress=remove)
    assert not answers.engine.observe("roost")


def test_what_was_healed_stays_when_another_node_dies(answers: Answers) -> None:
    Pool.up(spec(), engine=answers.engine)
    everything = names(answers)
    list(answers.engine.retire([Ref("node", "roost-master")]))

    def die(happened: Happened) -> None:
        if isinstance(happened, Stage) and happened.text.startswith("waiting"):
            answers.engine.end("roost-submit", 137)

    with pytest.raises(PoolNotReady, match="roost-submit ended with status 137"):
        Pool.up(engine=answers.engine, progress=die)
    assert names(answers) == everything
    Pool.up(engine=answers.engine)
    states = {node.name: node.state for node in answers.engine.observe("roost").nodes}
    assert states == dict.fromkeys(everything, "running")


def test_a_first_job_that_fails_undoes_all(answers: Answers) -> None:
    answers.exit_code = 1
    with pytest.raises(JobError, match=r"first job failed: 1\.0 ended with exit code 1"):
        Pool.up(spec(), engine=answers.engine)
    assert not answers.engine.observe("roost")


def test_an_interrupt_undoes_all(answers: Answers) -> None:
    def interrupt(happened: Happened) -> None:
        if isinstance(happened, Event) and happened.ref.name == "roost-execute-1":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Pool.up(spec(), engine=answers.engine, progress=interrupt)
    assert not answers.engine.observe("roost")


def test_a_change_that_fails_puts_back_what_was(answers: Answers) -> None:
    Pool.up(spec(2), engine=answers.engine)
    before = answers.engine.observe("roost")
    answers.exit_code = 1
    with pytest.raises(JobError):
        Pool.up(spec(2, config="START = False"), engine=answers.engine)
    after = answers.engine.observe("roost")
    assert {node.name: node.spec for node in after.nodes} == {
        node.name: node.spec for node in before.nodes
    }


def test_two_pools_do_not_see_each_other(answers: Answers) -> None:
    Pool.up(spec(1, name="a"), engine=answers.engine)
    other = Pool.up(spec(1, name="b"), engine=answers.engine)
    other.down()
    assert names(answers, "a") == ["a-execute-1", "a-master", "a-submit"]


# --- attach, scale, down --------------------------------------------------------------------------


def test_attach_to_nothing(answers: Answers) -> None:
    with pytest.raises(PoolNotFound, match="no pool 'roost'"):
        Pool.attach(engine=answers.engine)


def test_scale_and_attach_agree(answers: Answers) -> None:
    Pool.up(spec(1), engine=answers.engine)
    Pool.attach(engine=answers.engine).scale(3)
    assert Pool.attach(engine=answers.engine).spec.executors == 3


def test_scale_down_asks_the_schedd_too_because_the_collector_hears_late(
    answers: Answers,
) -> None:
    pool = Pool.up(engine=answers.engine, executors=3)
    answers.running = {"roost-execute-3"}
    pool.scale(1)
    left = [node.name for node in pool.observe().nodes if node.role == "execute"]
    assert left == ["roost-execute-3"]


def test_scale_down_keeps_the_busy(answers: Answers) -> None:
    pool = Pool.up(spec(3), engine=answers.engine)
    answers.busy = {"roost-execute-3"}
    pool.scale(1)
    assert "roost-execute-3" in names(answers)
    pool.scale(2)
    assert {"roost-execute-1", "roost-execute-3"} < set(names(answers))


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drain, "_LOOKS", (0.01, 0.01))


def told(happened: list[Happened]) -> list[str]:
    return [
        f"{each.ref.name} {each.kind} {each.detail}".strip()
        for each in happened
        if isinstance(each, Event) and each.kind in ("waiting", "drained", "removed", "resumed")
    ]


def test_scale_down_drains_before_it_removes(answers: Answers, quick: None) -> None:
    pool = Pool.up(spec(3), engine=answers.engine)
    answers.busy = {"roost-execute-1", "roost-execute-2"}
    answers.ages = {"roost-execute-1": 3700, "roost-execute-2": 65}
    answers.ends_after = 3
    happened: list[Happened] = []
    pool.scale(1, progress=happened.append)
    assert told(happened) == [
        "roost-execute-2 waiting for 7.0 of john (1 min 5 s)",
        "roost-execute-3 drained",
        "roost-execute-2 drained",
        "roost-execute-2 removed",
        "roost-execute-3 removed",
    ]
    assert answers.busy == {"roost-execute-1"}


def test_scale_down_sends_jobs_away_after_the_limit(answers: Answers, quick: None) -> None:
    pool = Pool.up(spec(1), engine=answers.engine)
    answers.busy = {"roost-execute-1"}
    happened: list[Happened] = []
    pool.scale(0, limit="0s", progress=happened.append)
    assert told(happened)[0] == ("roost-execute-1 waiting the limit is over for 7.0 of john (5 s)")
    assert "roost-execute-1" not in names(answers)
    with pytest.raises(BadInput, match="the limit is 'soon', not a duration"):
        pool.scale(0, limit="soon")


def test_force_does_not_drain(answers: Answers) -> None:
    pool = Pool.up(spec(1), engine=answers.engine)
    answers.busy = {"roost-execute-1"}
    pool.scale(0, force=True)
    assert answers.looks == 0
    assert "roost-execute-1" not in names(answers)


# --- drain ----------------------------------------------------------------------------------------


def test_drain_takes_exactly_this_one_away_for_good(answers: Answers, quick: None) -> None:
    pool = Pool.up(spec(3), engine=answers.engine)
    answers.busy = {"roost-execute-1"}
    answers.ends_after = 2
    done = pool.drain("execute-1")
    assert done == Drained("roost", ("roost-execute-1",), ())
    left = ["roost-execute-2", "roost-execute-3", "roost-master", "roost-submit"]
    assert names(answers) == left
    Pool.up(engine=answers.engine)
    assert names(answers) == left
    Pool.up(spec(3), engine=answers.engine)
    assert "roost-execute-1" in names(answers)


def test_drain_says_what_it_sent_away(answers: Answers, quick: None) -> None:
    pool = Pool.up(spec(2), engine=answers.engine)
    answers.busy = {"roost-execute-2"}
    done = pool.drain(["execute-1", "roost-execute-2"], limit=0)
    assert done == Drained("roost", ("roost-execute-1", "roost-execute-2"), ("7.0",))
    assert names(answers) == ["roost-master", "roost-submit"]


def test_a_drain_that_is_interrupted_is_taken_back(answers: Answers, quick: None) -> None:
    pool = Pool.up(spec(2), engine=answers.engine)
    answers.busy = {"roost-execute-1"}
    happened: list[Happened] = []

    def interrupt(event: Happened) -> None:
        happened.append(event)
        if isinstance(event, Event) and event.kind == "waiting":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pool.drain(["execute-1", "execute-2"], progress=interrupt)
    assert answers.draining == set()
    assert len(names(answers)) == 4
    assert Pool.attach(engine=answers.engine).spec.executors == 2


def test_a_drain_that_was_forgotten_is_taken_back_by_up(answers: Answers) -> None:
    Pool.up(spec(2), engine=answers.engine)
    answers.draining = {"roost-execute-2"}
    happened: list[Happened] = []
    Pool.up(engine=answers.engine, progress=happened.append)
    assert answers.draining == set()
    assert told(happened) == ["roost-execute-2 resumed it takes jobs again"]


def test_drain_refuses_what_it_cannot_mean(answers: Answers) -> None:
    pool = Pool.up(spec(2), engine=answers.engine)
    with pytest.raises(BadInput, match="did you mean 'execute-1'"):
        pool.drain("exekute-1")
    with pytest.raises(BadInput, match="roost-submit runs no jobs: it is the pool's submit node"):
        pool.drain("submit")
    answers.engine.end("roost-execute-1", 3)
    with pytest.raises(PoolNotReady, match="roost-execute-1 does not run: it is exited"):
        pool.drain(["execute-2", "execute-1"])
    assert answers.looks == 0
    with pytest.raises(BadInput, match="the limit is -1"):
        pool.drain("execute-2", limit=-1)


def test_an_executor_whose_image_knows_no_drain_says_so(answers: Answers) -> None:
    pool = Pool.up(spec(2), engine=answers.engine)
    answers.old = {"roost-execute-2"}
    with pytest.raises(PoolNotReady, match="roost-execute-2 cannot be drained: 'drain' is unknown"):
        pool.scale(1)
    assert len(names(answers)) == 4
    pool.scale(1, force=True)
    assert len(names(answers)) == 3


def test_an_executor_that_ends_while_it_drains_is_drained(answers: Answers, quick: None) -> None:
    pool = Pool.up(spec(1), engine=answers.engine)
    answers.busy = {"roost-execute-1"}

    def end(event: Happened) -> None:
        if isinstance(event, Event) and event.kind == "waiting":
            answers.engine.end("roost-execute-1")

    pool.drain("execute-1", progress=end)
    assert names(answers) == ["roost-master", "roost-submit"]


def test_down_says_what_still_runs(answers: Answers) -> None:
    pool = Pool.up(spec(1), engine=answers.engine)
    answers.busy = {"roost-execute-1"}
    happened: list[Happened] = []
    pool.down(progress=happened.append)
    assert happened[0] == Stage("1 job still run: they end with the pool")


# --- another release ------------------------------------------------------------------------------


def forky(count: int = 4) -> PoolSpec:
    return spec(count, htcondor=HTCondor(release="forky"))


def releases(answers: Answers) -> dict[str, str]:
    nodes = answers.engine.observe("roost").nodes
    return {node.name.removeprefix("roost-"): node.image.rpartition(":")[2] for node in nodes}


def test_another_release_goes_from_node_to_node(answers: Answers, quick: None) -> None:
    Pool.up(spec(4), engine=answers.engine)
    happened: list[Happened] = []
    Pool.up(forky(), engine=answers.engine, progress=happened.append)
    assert set(releases(answers).values()) == {"forky"}
    removed = [
        each.ref.name.removeprefix("roost-")
        for each in happened
        if isinstance(each, Event) and each.kind == "removed"
    ]
    assert removed == [f"execute-{n}" for n in (1, 2, 3, 4)] + ["submit", "master"]
    assert answers.looks == 4
    assert Pool.attach(engine=answers.engine).spec.htcondor.release == "forky"


def test_an_upgrade_that_fails_leaves_what_has_it_and_says_what_has_what(
    answers: Answers, quick: None
) -> None:
    Pool.up(spec(4), engine=answers.engine)

    def die(happened: Happened) -> None:
        waits = isinstance(happened, Stage) and happened.text.startswith("waiting")
        if waits and releases(answers)["execute-3"] == "forky":
            answers.engine.end("roost-execute-3", 3)

    with pytest.raises(PoolNotReady) as caught:
        Pool.up(forky(), engine=answers.engine, progress=die)
    said = str(caught.value)
    assert "stopped half-way: roost-execute-3 ended with status 3" in said
    assert "forky on roost-execute-1, roost-execute-2; trixie on roost-execute-3" in said
    assert releases(answers) == {
        "execute-1": "forky", "execute-2": "forky", "execute-3": "trixie", "execute-4": "trixie",
        "master": "trixie", "submit": "trixie",
    }  # fmt: skip
    assert all(node.state == "running" for node in answers.engine.observe("roost").nodes)
    # the same command goes on, `roost up` goes back
    Pool.up(engine=answers.engine)
    assert set(releases(answers).values()) == {"trixie"}


def test_an_interrupted_upgrade_leaves_a_whole_pool(answers: Answers, quick: None) -> None:
    Pool.up(spec(2), engine=answers.engine)
    happened: list[Happened] = []

    def interrupt(event: Happened) -> None:
        happened.append(event)
        at = Event("created", Ref("node", "roost-execute-2"))
        if event == at and happened.count(at) == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Pool.up(forky(2), engine=answers.engine, progress=interrupt)
    assert releases(answers) == {
        "execute-1": "forky", "execute-2": "trixie", "master": "trixie", "submit": "trixie",
    }  # fmt: skip
    assert happened[-1] == Stage(
        "the nodes' images are: forky on roost-execute-1; "
        "trixie on roost-execute-2, roost-master, roost-submit"
    )


def test_a_release_that_is_not_here_touches_nothing(answers: Answers) -> None:
    Pool.up(spec(2), engine=answers.engine)
    answers.engine.images = {PoolSpec().image_name}
    with pytest.raises(ImageMissing, match="roost image build --release forky"):
        Pool.up(forky(2), engine=answers.engine)
    assert set(releases(answers).values()) == {"trixie"}
    assert answers.looks == 0


def test_scale_refuses_what_it_cannot_mean(answers: Answers) -> None:
    groups = PoolSpec(execute=(Execute(name="cpu"), Execute(name="gpu")))
    pool = Pool.up(groups, engine=answers.engine)
    with pytest.raises(BadInput, match="2 groups; say which: cpu=N, gpu=N"):
        pool.scale(3)
    with pytest.raises(BadInput, match="no group 'cpus'; its groups: cpu, gpu"):
        pool.scale({"cpus": 3})
    with pytest.raises(BadInput):
        pool.scale({"cpu": -1})


def test_scale_needs_the_keys(answers: Answers, monkeypatch: pytest.MonkeyPatch) -> None:
    Pool.up(spec(1), engine=answers.engine)
    monkeypatch.setenv("XDG_STATE_HOME", "/nonexistent")
    with pytest.raises(BadInput, match="keys of the pool"):
        Pool.attach(engine=answers.engine).scale(2)


def test_down_keeps_the_spool_if_asked(answers: Answers) -> None:
    pool = Pool.up(spec(1), engine=answers.engine)
    pool.down(keep_spool=True)
    assert answers.engine.observe("roost").volumes == ("roost-home", "roost-spool")
    Pool.up(spec(1), engine=answers.engine).down()
    assert not answers.engine.observe("roost")
    pool.down()


# --- inside ---------------------------------------------------------------------------------------


def test_submission(answers: Answers, tmp_path: Path) -> None:
    pool = Pool.up(spec(1), engine=answers.engine)
    file = tmp_path / "a.sub"
    file.write_text("executable=/bin/true\nqueue\n")
    job = pool.submit(file)
    assert (job.id, job.exit_code) == ("2", None)


def test_nodes_by_short_name_and_by_near_miss(answers: Answers) -> None:
    pool = Pool.up(spec(1), engine=answers.engine)
    assert pool.node("submit").name == "roost-submit"
    with pytest.raises(BadInput, match="did you mean 'roost-submit'"):
        pool.node("roost-submi")


def test_logs_are_merged_by_time_and_filtered(answers: Answers) -> None:
    pool = Pool.up(spec(0), engine=answers.engine)
    answers.engine.say("roost-master", "collector | 11/22/26 10:00:02 b", "negotiator | no time")
    first, last = "schedd | 11/22/26 10:00:01 a", "schedd | 11/22/26 10:00:03 c"
    answers.engine.say("roost-submit", first, last)
    assert [line[-1] for _, line in pool.logs()] == ["a", "b", "e", "c"]
    assert {line for _, line in pool.logs(daemon="schedd", follow=True)} == {first, last}


def test_env_writes_a_private_configuration(answers: Answers) -> None:
    pool = Pool.up(spec(1), engine=answers.engine)
    config = Path(pool.env()["CONDOR_CONFIG"])
    assert config.stat().st_mode & 0o077 == 0
    text = config.read_text()
    address = answers.engine.endpoint(pool.node("master").ref, 9618)
    assert f"COLLECTOR_HOST = <{address}?alias=roost-master>" in text
    assert "SEC_CLIENT_AUTHENTICATION_METHODS = SSL" in text
    with pytest.raises(BadInput, match="no user 'joan'; users: user"):
        pool.env("joan")


# --- users --------------------------------------------------------------------------------------


def test_a_user_is_added_in_place_and_stays(answers: Answers, tmp_path: Path) -> None:
    pool = Pool.up(spec(1), engine=answers.engine)
    assert pool.add_user("mary") is None
    assert answers.asked[-1] == ("roost-submit", ["roost-node", "user", "add", "mary"])
    assert pool.spec.submit.users == ("user", "mary")
    made = answers.engine._ensured
    again = Pool.up(engine=answers.engine)
    assert (again.spec.submit.users, answers.engine._ensured) == (("user", "mary"), made)
    # In the file of somebody else, and out of it: accounts are made, nothing is made anew.
    Pool.up(spec(1, submit=Submit(users=("john",))), engine=answers.engine)
    assert ("roost-submit", ["roost-node", "user", "add", "john"]) in answers.asked
    assert answers.engine._ensured == made


def test_a_bundle_is_all_that_a_user_needs_and_its_owners_alone(
    answers: Answers, tmp_path: Path
) -> None:
    pool = Pool.up(spec(1), engine=answers.engine)
    bundle = pool.add_user("mary", bundle=tmp_path / "mary.tar", expires="2d")
    assert bundle is not None
    assert 86400 < bundle.expires - time.time() <= 2 * 86400
    assert (tmp_path / "mary.tar").stat().st_mode & 0o777 == 0o600
    with tarfile.open(tmp_path / "mary.tar") as tar:
        assert {entry.name: entry.mode for entry in tar} == {
            "roost-mary": 0o700,
            **{f"roost-mary/{name}": 0o600 for name in
               ("condor_config", "schedd", "ca.crt", "user.crt", "user.key")},
        }  # fmt: skip
        inside = {Path(entry.name).name: tar.extractfile(entry).read()  # type: ignore[union-attr]
                  for entry in tar if entry.isfile()}  # fmt: skip
    pki.verify(inside["ca.crt"], inside["user.crt"], inside["user.key"], "mary")
    assert "AUTH_SSL_CLIENT_KEYFILE = $(CONFIG_ROOT)/user.key" in inside["condor_config"].decode()
    # The key is nowhere else.
    kept = [path.read_bytes() for path in PoolKeys("roost").directory.rglob("*") if path.is_file()]
    assert [data for data in kept if inside["user.key"] in data] == []


@pytest.mark.parametrize(
    ("name", "more", "says"),
    [
        ("Mary", {}, "'Mary' is not a user's name"),
        ("root", {}, "the user is 'root', a name of the pool's or the system's own"),
        ("exec-a", {}, "a name of the pool's"),
        ("mary", {"expires": "2d"}, "name the file with -o"),
        ("mary", {"bundle": "x", "expires": "10s"}, "good for 1h to 366d"),
        ("mary", {"bundle": "x", "expires": "soon"}, "the certificate's life is 'soon'"),
        ("mary", {"bundle": "."}, "exists already"),
        ("mary", {"bundle": "nowhere/x"}, "nowhere is not a directory"),
        ("mallory", {}, "mallory is revoked in the pool 'roost'"),
    ],
)
def test_users_that_cannot_be_added(
    answers: Answers, name: str, more: dict[str, Any], says: str,
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    pool = Pool.up(spec(1), engine=answers.engine)
    PoolKeys("roost").revoke(["mallory"])
    before = len(answers.asked)
    with pytest.raises(BadInput, match=says):
        pool.add_user(name, **more)
    assert answers.asked[before:] == []
    assert pool.spec.submit.users == ("user",)
    assert [path.name for path in tmp_path.iterdir()] == ["state"]


def test_the_only_user_stays(answers: Answers) -> None:
    pool = Pool.up(spec(1), engine=answers.engine)
    with pytest.raises(BadInput, match="'user' is the only user of the pool 'roost'"):
        pool.remove_user("user")


def test_public_names_are_sorted_and_there() -> None:
    assert roost.__all__ == sorted(roost.__all__)
    for name in roost.__all__:
        assert getattr(roost, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'Cluster'"):
        roost.Cluster  # noqa: B018


def test_telling_lines_are_those_of_failure() -> None:
    noise = ["a | D_ALWAYS D_ERROR", "a | RequestsFailed = 0", "a | EXITING WITH STATUS 0", ""]
    wrong = ["roost | the schedd ended", "b | ERROR: x", "c | exited with status 44"]
    assert telling([*noise, *wrong, *noise]) == wrong
    assert telling(noise) == noise[:3]
