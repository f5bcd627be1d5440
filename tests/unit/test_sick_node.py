"""When a node is to blame for its failing jobs, and when the jobs are."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from roost_node import sick
from roost_node.sick import End, Other, Record, ends, judge, others

NOW = 1_795_486_700
AD = {
    "CompletionDate": NOW, "RemoteWallClockTime": 1, "GlobalJobId": '"p-submit#7.3#1795486653"',
    "Owner": '"john"', "Cmd": '"/home/john/roost/9Q8/x/run.sh"', "StarterExitStatus": 0,
    "ExitBySignal": "false",
}  # fmt: skip


def history(**changed: Any) -> str:
    ad = AD | changed
    text = "".join(f"{name} = {value}\n" for name, value in ad.items())
    return f'{text}*** Offset = 0 ClusterId = 7 ProcId = 3 Owner = "john" CompletionDate = 1\n'


def ended_25(**changed: Any) -> str:
    """As HTCondor 25 writes it: no ToE, but why a run was ended from outside."""
    return history(**{"JobPid": 31, "JobDuration": 0.1, "ExitCode": 3} | changed)


def ended(code: int, when: int = NOW, duration: float = 0.1, **more: Any) -> str:
    toe = f'[ How = "OF_ITS_OWN_ACCORD"; Who = "itself"; When = {when}; HowCode = 0; ]'
    return history(ExitCode=code, JobDuration=duration, ToE=toe, **more)


# --- the startd's record --------------------------------------------------------------------


def test_an_end_knows_what_job_it_was() -> None:
    (end,) = ends(ended(0))
    assert (end.when, end.well, end.batch, end.kind) == (NOW, True, "p-submit#7", "john/run.sh")


@pytest.mark.parametrize(
    ("text", "how"),
    [
        (ended(3), "exit code 3"),
        (ended(0, ExitBySignal="true", ExitSignal=11), "signal 11"),
        (ended_25(), "exit code 3"),
        (ended_25(ExitBySignal="true", ExitSignal=9), "signal 9"),
        (history(), "could not be started"),
        (history(StarterExitStatus=256), "could not be started"),
    ],
)
def test_failures(text: str, how: str) -> None:
    (end,) = ends(text)
    assert (end.well, end.how) == (False, how)


@pytest.mark.parametrize(
    "text",
    [
        history(ExitBySignal="true", ExitSignal=15, JobDuration=5.1),  # condor_rm, vacated
        ended_25(VacateReasonCode=1009, ExitBySignal="true", ExitSignal=15),
        history(StarterExitStatus=1024),  # removed while its input came
        history(StarterExitStatus=512),  # its shadow was lost
        history(BadputCausedByDraining="true"),
        ended(3, duration=31.0),  # it had something to run with
        ended(3, when=NOW - 100),  # the ending of an earlier run
        history(StarterExitStatus=9),
    ],
)
def test_what_says_nothing_about_the_node(text: str) -> None:
    assert ends(text) == []


def test_half_an_ad_waits_for_its_end(tmp_path: Path) -> None:
    path = tmp_path / "startd_history"
    path.write_text(ended(0))
    read = sick.History(str(path))
    assert read.new() == ""  # what was there before is another life's
    one, two = ended(1), ended(2)
    with path.open("a") as file:
        file.write(one + two[:50])
    assert read.new() == one
    with path.open("a") as file:
        file.write(two[50:])
    assert read.new() == two
    path.rename(tmp_path / "startd_history.old")
    assert read.new() == ""
    path.write_text(one)
    assert read.new() == one


# --- what is published ----------------------------------------------------------------------


def failures(count: int = 5, when: int = NOW, batch: str = "s#1") -> list[End]:
    return [End(when + n, False, batch, "john/run.sh", "exit code 9") for n in range(count)]


def test_a_streak_is_enough_failures_since_the_last_job_that_did_well() -> None:
    record = Record()
    record.add(failures(4))
    assert record.streak(NOW + 5) == []
    record.add(failures(1, NOW + 4))
    assert len(record.streak(NOW + 5)) == 5
    assert record.streak(NOW + sick.RECENT + 5) == []
    record.add([End(NOW + 5, True, "s#1", "john/run.sh")])
    assert record.streak(NOW + 5) == []


def test_what_is_published_is_read_by_others() -> None:
    record = Record()
    record.add([End(NOW, True, "s#1", "john/run.sh"), *failures(20)])
    lines = dict(line.split(" = ") for line in record.ad(NOW).splitlines())
    assert lines["RoostFailing"] == "16"
    answer = f"ex-2\tfalse\t{lines['RoostEnds'].strip(chr(34))}\tundefined\tundefined\tu\tfalse\n"
    (other,) = others(answer).values()
    assert [end.text() for end in other.ends] == [end.text() for end in record.ends]
    assert len(other.ends) == sick.REMEMBERED


def test_the_newest_of_a_nodes_ads_counts() -> None:
    pool = others(
        f"a\tundefined\t{NOW}:w:s#1:j/x\tundefined\tundefined\tundefined\tfalse\n"
        f"a\ttrue\t{NOW + 5}:f:s#1:j/x\ts#1.4#17\tjohn@p\t/bin/x y\ttrue\n"
        f"b\tundefined\tundefined\tundefined\tundefined\tundefined\tundefined\n"
    )
    assert [end.when for end in pool["a"].ends] == [NOW + 5]
    assert (pool["a"].sick, pool["a"].running) == (True, {("s#1", "john/x_y")})
    assert (pool["b"].sick, pool["b"].ends) == (False, [])
    with pytest.raises(ValueError, match=r".*"):
        others("Error: cannot connect\n")


@pytest.mark.parametrize("name", ['x"y', "a b", "a:b", "a\tb", "ä" * 99])
def test_no_name_breaks_what_is_published(name: str) -> None:
    end = End(NOW, True, sick.batch(f"{name}#1.0#1"), sick.kind(name, f"/x/{name}"))
    assert not set(end.text()) & set(' "\t\\')
    assert len(end.text().split(":")) == 4


# --- who is to blame ------------------------------------------------------------------------


def other(*found: End, running: Sequence[tuple[str, str]] = (), is_sick: bool = False) -> Other:
    made = Other()
    made.ends, made.running, made.sick = list(found), set(running), is_sick
    return made


def fine(count: int = 3, when: int = NOW + 1, batch: str = "s#1") -> list[End]:
    return [End(when, True, batch, "john/run.sh")] * count


def test_a_node_that_fails_what_others_do_well_is_to_blame() -> None:
    blamed, reason = judge(failures(), {"a": other(*fine()), "b": other()})
    assert blamed == "node"
    assert reason == (
        "its last 5 jobs all failed within seconds (exit code 9), "
        "while jobs like them do well on another executor"
    )


def test_a_long_job_that_runs_elsewhere_does_well() -> None:
    alike = [("s#1", "john/other.sh"), ("s#9", "john/run.sh")]
    assert judge(failures(), {"a": other(running=alike)})[0] == "node"
    assert judge(failures(), {"a": other(running=[("s#9", "john/other.sh")])})[0] == ""


@pytest.mark.parametrize(
    "pool",
    [
        {},
        {"a": other()},
        {"a": other(*fine(1))},  # one may have been lucky
        {"a": other(*fine(9, NOW - 1))},  # before it began: the user's next jobs may be broken
        {"a": other(End(NOW + 1, True, "s#2", "mary/run.sh"))},
        {"a": other(*fine()), "b": other(*fine(), is_sick=True)},  # the last but one stays
    ],
)
def test_nobody_is_blamed_without_evidence(pool: dict[str, Other]) -> None:
    assert judge(failures(), pool) == ("", "")


@pytest.mark.parametrize(
    "pool",
    [
        {"a": other(*failures())},
        {"a": other(*failures(1), *fine())},  # a quarter of them fails there
        {"a": other(*failures()), "b": other(*fine(9))},
    ],
)
def test_jobs_that_fail_elsewhere_too_are_to_blame(pool: dict[str, Other]) -> None:
    assert judge(failures(), pool)[0] == "jobs"


def test_a_broken_batch_drains_nobody_while_another_does_well() -> None:
    """Every node of a pool sees the same; none of them drains itself."""
    busy = {f"n{n}": other(*failures(3), *fine(2)) for n in range(10)}
    assert judge(failures(), busy)[0] == "jobs"


def test_a_few_bad_nodes_are_found_among_many() -> None:
    pool = {f"n{n}": other(*fine()) for n in range(9)}
    pool["bad"] = other(*failures(), is_sick=True)
    assert judge(failures(), pool)[0] == "node"


def test_half_of_the_pool_stays_whatever_happens() -> None:
    pool = {f"n{n}": other(*fine(), is_sick=n < 5) for n in range(9)}
    assert judge(failures(), pool)[0] == ""


# --- the watch ------------------------------------------------------------------------------


class Bench:
    def __init__(self, tmp_path: Path) -> None:
        self.said: list[str] = []
        self.reconfigured = 0
        self.history = tmp_path / "startd_history"
        self.history.touch()
        self.execute = tmp_path / "execute"
        self.execute.mkdir()
        self.fifo = tmp_path / "ends"
        os.mkfifo(self.fifo)
        self.reader = os.open(self.fifo, os.O_RDONLY | os.O_NONBLOCK)
        self.watch = sick.Watch(
            "ex-1", str(self.history), str(self.execute), self.said.append, self.reconfigure, {},
            fifo=str(self.fifo),
        )  # fmt: skip

    def reconfigure(self) -> None:
        self.reconfigured += 1

    def published(self) -> str:
        try:
            return os.read(self.reader, 65536).decode()
        except BlockingIOError:
            return ""

    def end(self, code: int, count: int = 1, now: int = NOW) -> None:
        with self.history.open("a") as file:
            file.write(ended(code, now, CompletionDate=now) * count)
        self.watch.read(now)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    yield made
    os.close(made.reader)


WELL = (
    f"ex-2\tfalse\t{' '.join(end.text() for end in fine(3, NOW + 2, 'p-submit#7'))}\tu\tu\tu\tu\n"
)
BAD = f"ex-2\tfalse\t{' '.join(end.text() for end in failures(5, NOW, 'p-submit#7'))}\tu\tu\tu\tu\n"


def test_an_idle_node_says_nothing(bench: Bench) -> None:
    bench.watch.look(NOW)
    assert bench.published() == ""


def test_it_pauses_at_once_and_is_sick_when_others_do_well(bench: Bench) -> None:
    bench.end(9, 4)
    assert "RoostPaused = False" in bench.published()
    bench.end(9)
    assert "RoostPaused = True\nRoostSick = False" in bench.published()
    bench.watch.decide(WELL, NOW + 5)
    assert bench.said == []  # what failed elsewhere may not be known yet
    bench.watch.decide(WELL, NOW + 10)
    text = bench.published()
    assert "RoostPaused = False\nRoostSick = True" in text
    assert text.endswith("- update:true\n")
    (said,) = bench.said
    assert said.startswith("this node is sick and takes no more jobs: its last 5 jobs all failed")
    assert bench.reconfigured == 1


def test_it_goes_on_when_the_jobs_are_to_blame_and_does_not_pause_again(bench: Bench) -> None:
    bench.end(9, 5)
    bench.published()
    bench.watch.decide(BAD, NOW + 5)
    assert "RoostPaused = False" in bench.published()
    bench.end(9, 5, NOW + 6)
    assert bench.watch.paused == 0
    bench.end(0, 1, NOW + 7)
    bench.end(9, 5, NOW + 7 + sick.RECENT)
    assert bench.watch.paused
    assert bench.said == []


def test_the_only_executor_never_stops(bench: Bench) -> None:
    bench.end(9, 5)
    bench.watch.decide("", NOW + 5)
    assert (bench.watch.paused, bench.watch.sick) == (0, "")


def test_it_is_well_again_when_the_jobs_turn_out_to_be_to_blame(bench: Bench) -> None:
    bench.end(9, 5)
    bench.watch.decide(WELL, NOW + 10)
    bench.watch.decide(BAD, NOW + 70)
    assert bench.watch.sick == ""
    assert bench.said[-1].startswith("this node is well again: it was not this node")


def test_an_execute_directory_that_cannot_be_written(bench: Bench) -> None:
    bench.watch.look(NOW)
    bench.execute.rmdir()
    bench.execute.touch()
    bench.watch.look(NOW + sick.PROBE_EVERY)
    assert bench.watch.sick == (
        f"nothing can be written in {bench.execute}: {os.strerror(errno.ENOTDIR).lower()}"
    )
    assert "RoostSick = True" in bench.published()
    bench.execute.unlink()
    bench.execute.mkdir()
    bench.watch.look(NOW + 2 * sick.PROBE_EVERY)
    assert bench.said[-1] == "this node is well again: what was wrong is over"
    assert list(bench.execute.iterdir()) == []


def test_what_was_published_is_repeated(bench: Bench) -> None:
    bench.end(0)
    assert bench.published()
    bench.watch.look(NOW + 1)
    assert bench.published() == ""
    bench.watch.look(NOW + sick.PUBLISH_EVERY + sick.REPEAT)
    assert bench.published().endswith("-\n")
