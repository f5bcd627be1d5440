"""`roost-node drain`: what a startd's slots mean, and what is said and done until no job runs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from roost_node import drain
from roost_node.drain import Job, Report, report
from roost_node.errors import BadInput, NodeError
from roost_node.health import Answer


def slot(state: str, job: str = "", *, draining: bool = True) -> dict[str, Any]:
    ad: dict[str, Any] = {"Name": "slot1@n", "State": state}
    if draining:
        ad["RoostDraining"] = True
    if job:
        ad |= {"JobId": job, "RemoteOwner": "john@p.internal", "JobStart": 100}
    return ad


class FakeStartd(drain.Startd):
    """Obeys at the first SIGHUP after `deaf` ones; its jobs end one at each look from `ends` on."""

    def __init__(self, config: Path, jobs: list[str], *, deaf: int = 0) -> None:
        super().__init__(lambda _argv: Answer(1, ""))
        self.config = config
        self.jobs = jobs
        self.deaf = deaf
        self.draining = config.exists()
        self.hups = 0
        self.vacated = 0
        self.there = True
        self.ends = False

    def pids(self) -> list[int]:
        return [7] if self.there else []

    def reconfigure(self) -> None:
        self.hups += 1
        if self.hups > self.deaf:
            self.draining = self.config.exists()

    def report(self) -> Report | None:
        if not self.there:
            return None
        ads = [slot("Unclaimed", draining=self.draining)]
        ads += [slot("Claimed", job, draining=self.draining) for job in self.jobs]
        if self.ends and self.draining:
            self.jobs = self.jobs[1:]
        return report(ads, 160)

    def vacate(self) -> None:
        self.vacated += 1
        self.jobs = []


class Bench:
    def __init__(self, directory: Path) -> None:
        self.config = directory / "97-drain.conf"
        self.now = 0.0
        self.said: list[str] = []

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def run(self, startd: drain.Startd, *argv: str, role: str = "execute") -> int:
        return drain.run(
            argv, role, startd=startd, config=self.config, say=self.said.append,
            sleep=self.sleep, clock=lambda: self.now,
        )  # fmt: skip


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


# --- what the slots say -------------------------------------------------------------------------


def test_report_counts_each_job_once_and_in_order() -> None:
    ads = [slot("Unclaimed"), slot("Claimed", "10.0"), slot("Claimed", "9.1"), slot("Claimed")]
    now = report(ads, 160.9)
    assert now == Report(True, True, (Job("9.1", "john", 60), Job("10.0", "john", 60)))
    assert not now.drained


@pytest.mark.parametrize("state", ["Claimed", "Preempting", "Matched"])
def test_a_slot_that_may_yet_run_a_job_is_not_drained(state: str) -> None:
    assert not report([slot("Unclaimed"), slot(state)], 0).drained


def test_no_slot_that_takes_jobs_is_drained() -> None:
    assert report([slot("Unclaimed")], 0).drained
    assert report([slot("Owner")], 0).drained
    assert not report([slot("Unclaimed"), slot("Unclaimed", draining=False)], 0).drained
    assert not report([], 0).drained


# --- draining -----------------------------------------------------------------------------------


def test_it_waits_for_the_jobs_and_says_for_which(bench: Bench) -> None:
    startd = FakeStartd(bench.config, ["3.0", "3.1"])
    startd.ends = True
    assert bench.run(startd) == 0
    assert bench.said == [
        "waiting for 2 jobs: 3.0 of john (60 s), 3.1 of john (60 s)",
        "waiting for 1 job: 3.1 of john (60 s)",
        "drained: no job runs, and none will start",
    ]
    assert "START = False\n" in bench.config.read_text()
    assert startd.vacated == 0


def test_it_is_idempotent(bench: Bench) -> None:
    startd = FakeStartd(bench.config, [])
    bench.run(startd)
    hups = startd.hups
    bench.run(startd)
    assert startd.hups == hups
    assert bench.said == ["drained: no job runs, and none will start"] * 2


def test_after_the_limit_jobs_are_sent_away_once(bench: Bench) -> None:
    startd = FakeStartd(bench.config, ["3.0"])
    bench.run(startd, "--limit", "30")
    assert bench.now == pytest.approx(30, abs=2)
    assert startd.vacated == 1
    assert bench.said[1:] == [
        "the limit is over: sent away 1 job: 3.0 of john (60 s)",
        "drained: no job runs, and none will start",
    ]


def test_a_startd_that_obeys_late_is_told_again(bench: Bench) -> None:
    startd = FakeStartd(bench.config, [], deaf=2)
    bench.run(startd)
    assert startd.hups == 3
    assert 0 < bench.now < 60


def test_a_startd_that_never_obeys_is_an_error(bench: Bench) -> None:
    with pytest.raises(NodeError, match="does not read its configuration again"):
        bench.run(FakeStartd(bench.config, [], deaf=1000))


def test_without_a_startd_nothing_runs_and_nothing_will(bench: Bench) -> None:
    startd = FakeStartd(bench.config, ["3.0"])
    startd.there = False
    bench.run(startd)
    assert bench.config.exists()


def test_json_says_once_and_does_not_wait(bench: Bench) -> None:
    startd = FakeStartd(bench.config, ["3.0"])
    bench.run(startd, "--json")
    bench.run(startd, "--json", "--limit", "0")
    bench.run(startd, "--json")
    job = {"id": "3.0", "owner": "john", "seconds": 60}
    assert [json.loads(line) for line in bench.said] == [
        {"drained": False, "jobs": [job]},
        {"drained": False, "jobs": [job]},
        {"drained": True, "jobs": []},
    ]
    assert startd.vacated == 1


def test_cancel_puts_it_back_and_twice_is_no_error(bench: Bench) -> None:
    startd = FakeStartd(bench.config, ["3.0"])
    bench.run(startd, "--json")
    assert startd.report() == Report(True, True, (Job("3.0", "john", 60),))
    bench.run(startd, "--cancel")
    assert startd.report() == Report(False, True, (Job("3.0", "john", 60),))
    assert not bench.config.exists()
    bench.run(startd, "--cancel")
    assert bench.said[1:] == ["not draining: this node takes jobs"] * 2


@pytest.mark.parametrize(
    ("argv", "role", "sentence"),
    [
        (["--limit", "soon"], "execute", "'soon' is not a number of seconds"),
        (["--limit", "-1"], "execute", "--limit"),
        (["--limit", "5", "--cancel"], "execute", "--cancel has no --limit"),
        (["now"], "execute", "unrecognized arguments: now"),
        ([], "submit", "only an executor runs jobs and drains; this node is a submit node"),
    ],
)
def test_bad_input(bench: Bench, argv: list[str], role: str, sentence: str) -> None:
    with pytest.raises(BadInput) as caught:
        bench.run(FakeStartd(bench.config, []), *argv, role=role)
    assert sentence in str(caught.value)
    assert not bench.config.exists()


def test_the_startd_is_asked_at_its_own_address(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = tmp_path / ".startd_address"
    monkeypatch.setattr(drain, "_ADDRESS", address)
    asked: list[list[str]] = []

    def ask(status: int) -> Callable[[Any], Answer]:
        def answer(argv: list[str]) -> Answer:
            asked.append(argv)
            return Answer(status, json.dumps([slot("Unclaimed")]), "no")

        return answer

    assert drain.Startd(ask(0)).report() is None
    address.write_text("<10.0.0.4:9618?sock=startd>\n$CondorVersion$\n")
    assert drain.Startd(ask(0)).report() == Report(True, False, ())
    assert drain.Startd(ask(1)).report() is None
    with pytest.raises(NodeError, match="does not send its jobs away: no"):
        drain.Startd(ask(1)).vacate()
    assert all("<10.0.0.4:9618?sock=startd>" in argv for argv in asked)
