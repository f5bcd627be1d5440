"""The soak's judge: it must find each thing that can go wrong, and nothing where all is well."""

from __future__ import annotations

from dataclasses import replace

import pytest

from soak import events, report
from soak.events import JobEvent
from soak.oracle import (
    Evidence,
    Record,
    Sent,
    Struck,
    Verdict,
    expected_data,
    expected_output,
    verdict,
)
from soak.schedule import Batch, Job, Schedule, Strike

#: The first job ends with 0 on the first executor, the second with 3 on the second.
JOBS = (Job("b1-0", "alice", 5, 0), Job("b1-1", "alice", 5, 3, "input 1\n"))
HOSTS = ("p-execute-1", "p-execute-2")
BATCH = Batch("b1", 0.0, "alice", "array", JOBS)
SENT = (Sent(BATCH, 100.0, 7),)


def ran(job: str, host: str, *at: float) -> list[JobEvent]:
    """A job that was submitted at 100, began at each time and ended 5 s after the last."""
    return [
        JobEvent(job, events.SUBMITTED, 100.0),
        *(JobEvent(job, events.EXECUTING, each, host) for each in at),
        JobEvent(job, events.TERMINATED, at[-1] + 5),
    ]


def well() -> Evidence:
    """Nothing is wrong."""
    return Evidence(
        queue=[],
        history=[Record("b1-0", "7.0", 4, 0, None), Record("b1-1", "7.1", 4, 3, None)],
        events=[*ran("7.0", HOSTS[0], 101), *ran("7.1", HOSTS[1], 102)],
        files={
            name: text
            for job, host in zip(JOBS, HOSTS, strict=True)
            for name, text in (
                (f"{job.id}.data", expected_data(job)),
                (f"{job.id}.out", expected_output(job, host)),
                (f"{job.id}.err", ""),
            )
        },
    )


def hit(kind: str, node: str, began: float, ended: float, **more: bool | str) -> Struck:
    return Struck(Strike(1, 0.0, kind, node), began, ended, **more)  # type: ignore[arg-type]


def found(evidence: Evidence, *struck: Struck) -> Verdict:
    return verdict(SENT, evidence, struck)


def problems(evidence: Evidence, *struck: Struck) -> list[str]:
    return [each for judged in found(evidence, *struck).bad for each in judged.problems]


def test_all_is_well() -> None:
    judged = found(well())
    assert judged.bad == ()
    assert (judged.completed, judged.lost, judged.run_again, judged.refused) == (2, 0, 0, 0)


HISTORY = well().history


@pytest.mark.parametrize(
    ("evidence", "problem"),
    [
        (replace(well(), history=HISTORY[1:]), "neither in the queue nor in the history"),
        (
            replace(well(), history=[replace(HISTORY[0], exit_code=1), HISTORY[1]]),
            "exit code 1, not 0",
        ),
        (
            replace(well(), history=[HISTORY[0], replace(HISTORY[1], exit_code=0)]),
            "exit code 0, not 3",
        ),
        (
            replace(well(), history=[replace(HISTORY[0], exit_code=None, signal=9), HISTORY[1]]),
            "ended by signal 9, not with 0",
        ),
        (
            replace(well(), history=[replace(HISTORY[0], status=3, reason="why"), HISTORY[1]]),
            "removed: why",
        ),
        (
            replace(
                well(),
                queue=[replace(HISTORY[0], status=5, reason="no file")],
                history=HISTORY[1:],
            ),
            "held: no file",
        ),
        (
            replace(well(), history=[*HISTORY, replace(HISTORY[0], exit_code=1)]),
            "in the history with different ends; exit code 1, not 0",
        ),
        (
            replace(well(), history=[*HISTORY, replace(HISTORY[0], id="8.0")]),
            "there as 7.0, 8.0",
        ),
        (
            replace(well(), history=[replace(HISTORY[0], id="8.0"), HISTORY[1]]),
            "there as 8.0, acknowledged as 7.0",
        ),
    ],
)  # fmt: skip
def test_what_queue_and_history_give_away(evidence: Evidence, problem: str) -> None:
    assert "; ".join(problems(evidence)) == problem
    assert found(evidence).lost == 1


@pytest.mark.parametrize(
    ("name", "text", "problem"),
    [
        ("b1-0.data", None, "no b1-0.data"),
        ("b1-0.data", "", "b1-0.data is wrong: 0 lines, not 50"),
        ("b1-0.data", expected_data(JOBS[0])[:-10], "b1-0.data is wrong: line 50 is "),
        ("b1-0.data", expected_data(JOBS[0]) * 2, "b1-0.data is wrong: 100 lines, not 50"),
        ("b1-1.data", expected_data(JOBS[1])[8:], "b1-1.data is wrong: line 1 is "),
        ("b1-0.out", expected_output(JOBS[1], HOSTS[0]), "b1-0.out is wrong: line 1 is "),
        # it says that it ran where its log does not know of it
        ("b1-0.out", expected_output(JOBS[0], HOSTS[1]), "b1-0.out is wrong: line 1 is "),
        ("b1-0.out", f"run of b1-0 on {HOSTS[0]}\n", "b1-0.out is wrong: 1 lines, not 2"),
        ("b1-0.err", "sh: no\n", "b1-0.err is wrong: 1 lines, not 0"),
    ],
)
def test_what_the_files_give_away(name: str, text: str | None, problem: str) -> None:
    files = {**well().files, name: text}
    evidence = replace(well(), files={key: each for key, each in files.items() if each is not None})
    (said,) = problems(evidence)
    assert said.startswith(problem)
    assert found(evidence).lost == 1


def test_a_job_that_is_not_done_is_not_lost_but_wrong() -> None:
    waiting = replace(HISTORY[0], status=1, exit_code=None)
    evidence = replace(well(), queue=[waiting], history=HISTORY[1:])
    assert problems(evidence) == ["not done: idle"]
    assert found(evidence).lost == 0


def test_an_end_that_the_schedd_wrote_twice_is_one_end() -> None:
    evidence = replace(well(), history=[*HISTORY, HISTORY[0]])
    assert problems(evidence) == []
    assert found(evidence).told_twice == 1


def test_a_job_that_stands_in_queue_and_history_for_a_moment() -> None:
    assert problems(replace(well(), queue=[HISTORY[0]])) == []


def again(*at: float) -> Evidence:
    """The first job began more than once."""
    return replace(well(), events=[*ran("7.0", HOSTS[0], *at), *ran("7.1", HOSTS[1], 102)])


UNEXPLAINED = ["began again at 00:02:40 though nothing had hit it"]


@pytest.mark.parametrize(
    ("struck", "said"),
    [
        (hit("kill", "execute-1", 110, 111), []),
        (hit("kill", "submit", 110, 111), []),
        (hit("kill", "execute-2", 110, 111), UNEXPLAINED),
        (hit("kill", "master", 110, 111), UNEXPLAINED),
        (hit("kill", "execute-1", 90, 95), UNEXPLAINED),
        (hit("kill", "execute-1", 170, 171), UNEXPLAINED),
        (hit("scale", "execute-1", 110, 111, excuses=False), UNEXPLAINED),
        (hit("kill", "execute-1", 110, 111, missed="it was gone"), UNEXPLAINED),
    ],
)
def test_only_a_fault_that_hit_a_job_lets_it_run_again(struck: Struck, said: list[str]) -> None:
    assert problems(again(101, 160), struck) == said
    assert found(again(101, 160), struck).run_again == 1
    assert found(again(101, 160), struck).lost == 0


def test_each_start_needs_its_own_fault() -> None:
    one = hit("kill", "execute-1", 110, 111)
    assert problems(again(101, 130, 160), one) == UNEXPLAINED
    assert found(again(101, 160), one).outages[0].reruns == (50.0,)


def test_no_log_is_no_proof() -> None:
    evidence = replace(well(), events=[each for each in well().events if each.job != "7.0"])
    assert "no end in its log" in problems(evidence)
    assert "no start in its log" in problems(evidence)


def test_a_submission_that_was_refused_may_be_there_or_not() -> None:
    refused = (Sent(BATCH, 100.0, None, "no answer"),)
    judged = verdict(refused, well(), [])
    assert (judged.jobs, judged.refused, judged.unasked) == ((), 1, 2)
    nothing = verdict(refused, replace(well(), history=[]), [])
    assert (nothing.refused, nothing.unasked, nothing.bad) == (1, 0, ())


def test_an_outage_is_the_time_in_which_jobs_wait_and_nothing_happens() -> None:
    log = [
        JobEvent("1.0", events.SUBMITTED, 100),
        JobEvent("1.0", events.EXECUTING, 101, "p-execute-1"),
        JobEvent("2.0", events.SUBMITTED, 105),
        JobEvent("1.0", events.TERMINATED, 125),  # 20 s, for 2.0 waited
        JobEvent("2.0", events.EXECUTING, 130, "p-execute-1"),
        JobEvent("2.0", events.TERMINATED, 170),  # nobody waited
        JobEvent("2.0", events.EVICTED, 171),  # nor does a job that has ended
        JobEvent("3.0", events.SUBMITTED, 210),
        JobEvent("3.0", events.EXECUTING, 211, "p-execute-1"),
    ]
    evidence = replace(well(), events=log)
    first, second = hit("kill", "submit", 103, 104), hit("cut", "master", 128, 129)
    outages = verdict((), evidence, [second, first]).outages
    assert [each.seconds for each in outages] == [20.0, 2.0]


LOG = """\
000 (007.001.000) 2026-11-24 02:24:13 Job submitted from host: <172.26.0.3:9618?alias=p-submit>
...
001 (007.001.000) 2026-11-24 02:24:15 Job executing on host: <172.26.0.4:9618?alias=p-execute-1>
\tSlotName: slot1_1@p-execute-1
\tCpus = 1
...
005 (007.001.000) 2026-11-24 02:24:16 Job terminated.
\t(1) Normal termination (return value 3)
...
garbage
"""


def test_a_job_s_log_is_read() -> None:
    read = list(events.read(LOG))
    assert [(each.job, each.code, each.host) for each in read] == [
        ("7.1", events.SUBMITTED, ""),
        ("7.1", events.EXECUTING, "p-execute-1"),
        ("7.1", events.TERMINATED, ""),
    ]
    assert read[1].at - read[0].at == 2
    assert read[0].at == 1795487053


def test_the_report_says_it_all() -> None:
    struck = hit("kill", "execute-1", 110, 111)
    judged = found(replace(again(101, 160), history=HISTORY[1:]), struck)
    assert report.figures(judged)["lost"] == 1
    assert report.table(judged)[1].split() == ["kill", "execute", "1", "0", "s", "-", "1",
                                              "50", "s", "0"]  # fmt: skip
    assert report.complaint(judged.bad[0]) == (
        "b1-0 (7.0, alice): neither in the queue nor in the history;"
        " ran on p-execute-1, p-execute-1"
    )
    said = report.as_json(Schedule(7, (), ()), judged, [struck])
    assert (said["seed"], said["lost"], said["run_more_than_once"]) == (7, 1, 1)
    assert said["faults"][0]["run_again_after"] == (50.0,)
