"""Jobs as values, read from their ads."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Final, Literal

from roost.ads import Ad
from roost.errors import BadInput

State = Literal[
    "idle", "running", "removed", "completed", "held", "transferring", "suspended", "unknown"
]
#: JobStatus by HTCondor's numbers.
STATES: Final[dict[int, State]] = {
    1: "idle", 2: "running", 3: "removed", 4: "completed", 5: "held", 6: "transferring",
    7: "suspended",
}  # fmt: skip
FINAL: Final = frozenset[State]({"completed", "removed"})

#: Attributes with which each job says where its files are: here and on the submitter's machine.
DIRECTORY: Final = "RoostDirectory"
HOST_DIRECTORY: Final = "RoostHostDirectory"

#: What `Job.from_ad` reads.
PROJECTION: Final = (
    "ClusterId", "ProcId", "Owner", "JobStatus", "Cmd", "Args", "Arguments", "QDate",
    "JobCurrentStartDate", "RemoteWallClockTime", "RemoteHost", "LastRemoteHost", "ExitCode",
    "ExitSignal", "ExitBySignal", "HoldReason", "HoldReasonCode", "HoldReasonSubCode",
    "RemoveReason", "CompletionDate", "EnteredCurrentStatus", "ServerTime", "UserLog",
    "TotalSubmitProcs",
    DIRECTORY, HOST_DIRECTORY,
)  # fmt: skip

#: What `batches` reads: of ten thousand jobs, each attribute counts.
IN_SHORT: Final = ("ClusterId", "Owner", "JobStatus", "QDate", "Cmd", "JobBatchName")


@dataclass(frozen=True, order=True)
class JobId:
    """`7.0`, or with no proc a whole cluster, `7`."""

    cluster: int
    proc: int | None = None

    @classmethod
    def parse(cls, text: str) -> JobId:
        """Raises BadInput for anything but CLUSTER or CLUSTER.PROC."""
        match = re.fullmatch(r"([0-9]{1,9})(?:\.([0-9]{1,9}))?", text.strip())
        if match is None or match[1].strip("0") == "":
            raise BadInput(
                f"{text!r} is not a job id", advice="give a cluster such as 7, or a job such as 7.0"
            )
        return cls(int(match[1]), None if match[2] is None else int(match[2]))

    def __str__(self) -> str:
        return str(self.cluster) if self.proc is None else f"{self.cluster}.{self.proc}"


def _ending(ad: Ad) -> tuple[int | None, int | None]:
    """Exit code and signal; the schedd keeps those of earlier runs in idle and held jobs too."""
    if STATES.get(ad.get("JobStatus", 0)) != "completed":
        return None, None
    return (None, ad.get("ExitSignal")) if ad.get("ExitBySignal") else (ad.get("ExitCode"), None)


@dataclass(frozen=True)
class Job:
    """One job, as the schedd knows it."""

    id: str
    owner: str
    state: State
    command: str
    """The executable's file name and its arguments."""
    submitted: int
    """When, in seconds since the epoch."""
    run_time: int
    """Seconds that it ran in all, up to now."""
    host: str
    """The slot that it runs on, or ran on last; empty if none."""
    exit_code: int | None = None
    signal: int | None = None
    hold_reason: str = ""
    remove_reason: str = ""
    directory: str = ""
    """Where it was submitted from on the submitter's machine; empty if not through roost."""

    @classmethod
    def from_ad(cls, ad: Ad) -> Job:
        state = STATES.get(ad.get("JobStatus", 0), "unknown")
        code, signal = _ending(ad)
        ran = float(ad.get("RemoteWallClockTime") or 0)
        if state in ("running", "transferring", "suspended"):
            ran += max(0, ad.get("ServerTime", 0) - (ad.get("JobCurrentStartDate") or 0))
        command = PurePosixPath(str(ad.get("Cmd", ""))).name
        arguments = ad.get("Arguments") or ad.get("Args") or ""
        return cls(
            id=f"{ad['ClusterId']}.{ad['ProcId']}",
            owner=str(ad.get("Owner", "")),
            state=state,
            command=f"{command} {arguments}".strip(),
            submitted=int(ad.get("QDate", 0)),
            run_time=int(ran),
            host=str(ad.get("RemoteHost") or ad.get("LastRemoteHost") or ""),
            exit_code=code,
            signal=signal,
            hold_reason=str(ad.get("HoldReason", "")) if state == "held" else "",
            remove_reason=str(ad.get("RemoveReason", "")) if state == "removed" else "",
            directory=str(ad.get(HOST_DIRECTORY, "")),
        )


@dataclass(frozen=True)
class Batch:
    """The jobs of one cluster that are in the queue, in short."""

    cluster: int
    owner: str
    command: str
    """The executable's file name, or the name that the submission was given."""
    submitted: int
    """When, in seconds since the epoch."""
    states: Mapping[State, int]
    """How many are in which state."""

    @property
    def jobs(self) -> int:
        return sum(self.states.values())


def batches(ads: Iterable[Ad]) -> tuple[Batch, ...]:
    """What was submitted together, by its cluster."""
    first: dict[int, Ad] = {}
    states: dict[int, Counter[State]] = {}
    for ad in ads:
        first.setdefault(ad["ClusterId"], ad)
        state = STATES.get(ad.get("JobStatus", 0), "unknown")
        states.setdefault(ad["ClusterId"], Counter())[state] += 1
    return tuple(
        Batch(
            cluster,
            str(ad.get("Owner", "")),
            str(ad.get("JobBatchName") or PurePosixPath(str(ad.get("Cmd", ""))).name),
            int(ad.get("QDate", 0)),
            states[cluster],
        )
        for cluster, ad in sorted(first.items())
    )


@dataclass(frozen=True)
class JobResult:
    """How one job ended: by an exit code, by a signal, or removed for a reason."""

    id: str
    state: State
    exit_code: int | None
    signal: int | None
    reason: str
    """Why it was removed; empty if it was not."""

    @property
    def ok(self) -> bool:
        return self.state == "completed" and self.exit_code == 0

    @classmethod
    def from_job(cls, job: Job) -> JobResult:
        return cls(job.id, job.state, job.exit_code, job.signal, job.remove_reason)

    def __str__(self) -> str:
        if self.state == "removed":
            return f"{self.id} was removed: {self.reason or 'no reason given'}"
        if self.signal is not None:
            return f"{self.id} was killed by signal {self.signal}"
        return f"{self.id} ended with exit code {self.exit_code}"


def in_order(ads: Iterable[Ad]) -> list[Ad]:
    """By cluster and proc; an ad that both the queue and the history hold counts once."""
    by_id = {(ad["ClusterId"], ad["ProcId"]): ad for ad in ads if "ProcId" in ad}
    return [by_id[key] for key in sorted(by_id)]


def quoted(value: str) -> str:
    """`value` as a ClassAd string that a submit file may hold: `$` begins a macro there."""
    escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("$", "$(DOLLAR)")
    return f'"{escaped}"'


def shell(script: str, *words: Any) -> list[str]:
    """`sh` running `script` with `words` as $1, $2, …; nothing is spliced into the script."""
    return ["sh", "-c", script, "sh", *map(str, words)]
