"""What was submitted, what struck, what was found afterwards → a verdict on every job. Pure."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from soak import events
from soak.events import JobEvent
from soak.schedule import Batch, Job, Strike

#: The lines of a job's result: the first ones it writes when it begins, the others at its end.
LINES: Final = 50
#: Seconds by which times from different clocks and in whole seconds may differ.
SLACK: Final = 2.0
#: Seconds after a fault in which an outage counts as its own.
AFTERMATH: Final = 180.0

RUNNING: Final = frozenset((1, 2, 6, 7))
REMOVED: Final = 3
COMPLETED: Final = 4
HELD: Final = 5


def expected_data(job: Job) -> str:
    """What the job's result must hold."""
    return job.input + "".join(f"{job.id} line {number}\n" for number in range(1, LINES + 1))


def expected_output(job: Job, host: str) -> str:
    """What the job must have said, if it ran on `host`."""
    return f"run of {job.id} on {host}\nend of {job.id}\n"


@dataclass(frozen=True)
class Sent:
    """A batch that was submitted, or was tried to be."""

    batch: Batch
    at: float
    cluster: int | None = None
    """None if it was not acknowledged."""
    error: str = ""


@dataclass(frozen=True)
class Record:
    """A job as the queue or the history holds it."""

    job: str
    """The job's own name, which the submission gave it."""
    id: str
    """`7.0`"""
    status: int
    exit_code: int | None
    signal: int | None
    reason: str = ""
    """Why it is held or was removed."""


@dataclass(frozen=True)
class Struck:
    """A fault that has struck."""

    strike: Strike
    began: float
    ended: float
    excuses: bool = True
    """Whether a job on its victim may run again."""
    missed: str = ""
    """Why nothing happened; empty if it did."""
    ready: float | None = None
    """Seconds from its beginning until its victim was healthy again; None if not seen."""


@dataclass(frozen=True)
class Evidence:
    """All that is known after the last job should have ended."""

    queue: Sequence[Record]
    history: Sequence[Record]
    events: Sequence[JobEvent]
    files: Mapping[str, str]
    """Text by file name: `b0001-0.data`, `b0001-0.out`, `b0001-0.err`."""


@dataclass(frozen=True)
class Judged:
    """A job and what is wrong with it."""

    job: Job
    id: str
    problems: tuple[str, ...]
    lost: bool
    """Whether its user has lost something: the job, its result or its exit code."""
    starts: tuple[tuple[float, str], ...]
    reruns: tuple[tuple[float, int | None], ...] = ()
    """When it began again, and the number of the fault that explains it."""


@dataclass(frozen=True)
class Outage:
    """What a fault cost."""

    struck: Struck
    seconds: float
    """The longest time in which jobs waited and none began or ended."""
    reruns: tuple[float, ...]
    """For each job that it made run again: seconds until that."""
    refused: int
    """Submissions that were refused meanwhile."""


@dataclass(frozen=True)
class Verdict:
    """What a soak proved."""

    jobs: tuple[Judged, ...]
    outages: tuple[Outage, ...]
    refused: int
    """Batches that were not acknowledged: their users were told so at once."""
    unasked: int
    """Jobs that are there though their submission was not acknowledged."""

    told_twice: int
    """Jobs whose one end stands in the history more than once."""

    @property
    def bad(self) -> tuple[Judged, ...]:
        return tuple(each for each in self.jobs if each.problems)

    @property
    def lost(self) -> int:
        return sum(each.lost for each in self.jobs)

    @property
    def completed(self) -> int:
        return sum(not each.problems for each in self.jobs)

    @property
    def run_again(self) -> int:
        return sum(len(each.starts) > 1 for each in self.jobs)


def verdict(sent: Sequence[Sent], evidence: Evidence, struck: Sequence[Struck]) -> Verdict:
    """Judge every acknowledged job, and say what each fault cost."""
    happened = sorted((each for each in struck if not each.missed), key=lambda each: each.began)
    by_job: dict[str, list[JobEvent]] = defaultdict(list)
    for event in evidence.events:
        by_job[event.job].append(event)
    judged = tuple(
        _judge(job, f"{each.cluster}.{index}", evidence, by_job, happened)
        for each in sent
        if each.cluster is not None
        for index, job in enumerate(each.batch.jobs)
    )
    unknown = {job.id for each in sent if each.cluster is None for job in each.batch.jobs}
    return Verdict(
        judged,
        _outages(happened, evidence.events, judged, sent),
        sum(each.cluster is None for each in sent),
        sum(record.job in unknown for record in (*evidence.queue, *evidence.history)),
        sum(count > 1 for count in Counter(record.id for record in evidence.history).values()),
    )


def _judge(
    job: Job,
    id_: str,
    evidence: Evidence,
    by_job: Mapping[str, Sequence[JobEvent]],
    struck: Sequence[Struck],
) -> Judged:
    log = by_job.get(id_, ())
    starts = tuple((event.at, event.host) for event in log if event.code == events.EXECUTING)
    reruns = tuple((again[0], _culprit(first, again, struck)) for first, again in pairwise(starts))
    lost = [*_state(job, id_, evidence)]
    unfinished = _unfinished(job, evidence)
    # A job that has not completed has no result that could be wrong.
    if not lost and not unfinished:
        lost += _result(job, starts[-1][1] if starts else "", evidence.files)
    other = [
        f"began again at {_clock(at)} though nothing had hit it"
        for at, culprit in reruns
        if culprit is None
    ]
    if not unfinished and not starts:
        other.append("no start in its log")
    if not unfinished and not any(event.code == events.TERMINATED for event in log):
        other.append("no end in its log")
    return Judged(job, id_, (*lost, *unfinished, *other), bool(lost), starts, reruns)


def _unfinished(job: Job, evidence: Evidence) -> list[str]:
    names = {1: "idle", 2: "running", 6: "transferring its output", 7: "suspended"}
    return [
        f"not done: {names[record.status]}"
        for record in evidence.queue
        if record.job == job.id and record.status in RUNNING
    ]


def _state(job: Job, id_: str, evidence: Evidence) -> list[str]:
    """What is wrong with what queue and history say."""
    queue = [record for record in evidence.queue if record.job == job.id]
    history = [record for record in evidence.history if record.job == job.id]
    # For a moment a job may stand in both.
    found = [*history, *(record for record in queue if record.id not in {h.id for h in history})]
    if not found:
        return ["neither in the queue nor in the history"]
    wrong = []
    if len({record.id for record in found}) > 1:
        wrong.append(f"there as {', '.join(sorted({record.id for record in found}))}")
    elif found[0].id != id_:
        wrong.append(f"there as {found[0].id}, acknowledged as {id_}")
    # A schedd that dies between the history and the queue writes the same end again.
    if len({record.id for record in history}) == 1 and len(set(history)) > 1:
        wrong.append("in the history with different ends")
    for record in found:
        if record.status == HELD:
            wrong.append(f"held: {record.reason}")
        elif record.status == REMOVED:
            wrong.append(f"removed: {record.reason}")
        elif record.status == COMPLETED and record.signal is not None:
            wrong.append(f"ended by signal {record.signal}, not with {job.exit_code}")
        elif record.status == COMPLETED and record.exit_code != job.exit_code:
            wrong.append(f"exit code {record.exit_code}, not {job.exit_code}")
    return wrong


def _result(job: Job, host: str, files: Mapping[str, str]) -> list[str]:
    """What is wrong with the files of a job that says it is done."""
    wrong = []
    for name, right in (
        (f"{job.id}.data", expected_data(job)),
        (f"{job.id}.out", expected_output(job, host)),
        (f"{job.id}.err", ""),
    ):
        text = files.get(name)
        if text is None:
            wrong.append(f"no {name}")
        elif text != right:
            wrong.append(f"{name} is wrong: {_difference(text, right)}")
    return wrong


def _difference(text: str, right: str) -> str:
    there, wanted = text.splitlines(), right.splitlines()
    for number, (one, other) in enumerate(zip(there, wanted, strict=False), start=1):
        if one != other:
            return f"line {number} is {one[:60]!r}, not {other[:60]!r}"
    return f"{len(there)} lines, not {len(wanted)}"


def _culprit(
    first: tuple[float, str], again: tuple[float, str], struck: Sequence[Struck]
) -> int | None:
    """The fault for which a job that began at `first` had to begin `again`; None if there is none.

    One on its own executor counts before one on the access point.
    """
    hit = [
        each
        for each in struck
        if each.excuses
        and each.began - SLACK <= again[0]
        and each.ended + SLACK >= first[0]
        and (each.strike.node == "submit" or first[1].endswith(f"-{each.strike.node}"))
    ]
    own = [each for each in hit if each.strike.node != "submit"]
    found = (own or hit)[-1:]
    return found[0].strike.number if found else None


def _outages(
    struck: Sequence[Struck],
    log: Iterable[JobEvent],
    judged: Iterable[Judged],
    sent: Iterable[Sent],
) -> tuple[Outage, ...]:
    ordered = sorted(log, key=lambda event: event.at)
    busy = [each.at for each in ordered if each.code in (events.EXECUTING, events.TERMINATED)]
    waiting = _waiting(ordered)
    reruns: dict[int, list[float]] = defaultdict(list)
    began = {each.strike.number: each.began for each in struck}
    for job in judged:
        for at, culprit in job.reruns:
            if culprit is not None:
                reruns[culprit].append(max(0.0, at - began[culprit]))
    refusals = [each.at for each in sent if each.cluster is None]
    found = []
    for each in struck:
        later = [other.began for other in struck if other.began > each.ended + SLACK]
        end = min([each.began + AFTERMATH, *later])
        found.append(
            Outage(
                each,
                _longest(each.began, end, busy, waiting),
                tuple(sorted(reruns[each.strike.number])),
                sum(each.began - SLACK <= at < end for at in refusals),
            )
        )
    return tuple(found)


def _waiting(log: Iterable[JobEvent]) -> list[tuple[float, float]]:
    """The times in which a job waited to begin, one for each wait."""
    since: dict[str, float] = {}
    found = []
    over: set[str] = set()
    for event in log:
        if event.job in over:
            continue  # what a shadow of a dead schedd writes after the end
        if event.code in (events.TERMINATED, events.ABORTED):
            over.add(event.job)
        if event.code in (
            events.SUBMITTED, events.EVICTED, events.SHADOW_FAILED, events.RELEASED,
            events.RECONNECT_FAILED,
        ):  # fmt: skip
            since.setdefault(event.job, event.at)
        elif event.code in (events.EXECUTING, events.TERMINATED, events.ABORTED, events.HELD):
            start = since.pop(event.job, None)
            if start is not None:
                found.append((start, event.at))
    return found + [(start, float("inf")) for start in since.values()]


def _longest(
    start: float, end: float, busy: Sequence[float], waiting: Sequence[tuple[float, float]]
) -> float:
    """The longest time between start and end in which somebody waited and nothing happened."""
    points = sorted({start, end, *(at for at in busy if start < at < end)})
    longest = 0.0
    for one, other in pairwise(points):
        reach: float | None = None
        began = one
        for since, until in sorted(waiting):
            low, high = max(since, one), min(until, other)
            if low >= high:
                continue
            if reach is None or low > reach:
                began, reach = low, high
            reach = max(reach, high)
            longest = max(longest, reach - began)
    return longest


def _clock(at: float) -> str:
    minutes, seconds = divmod(int(at) % 86400, 60)
    return f"{minutes // 60:02}:{minutes % 60:02}:{seconds:02}"
