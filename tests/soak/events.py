"""What HTCondor wrote into a job's log: the events that a verdict needs. Pure."""

from __future__ import annotations

import re
from calendar import timegm
from collections.abc import Iterator
from dataclasses import dataclass
from time import strptime
from typing import Final

SUBMITTED: Final = 0
EXECUTING: Final = 1
EVICTED: Final = 4
TERMINATED: Final = 5
SHADOW_FAILED: Final = 7
ABORTED: Final = 9
HELD: Final = 12
RELEASED: Final = 13
RECONNECT_FAILED: Final = 24

_HEAD: Final = re.compile(
    r"^(\d{3}) \((\d+)\.(\d+)\.\d+\) (\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d)\S* (.*)$"
)
_SLOT: Final = re.compile(r"^\s*SlotName: \S*@([\w-]+)", re.MULTILINE)
_ALIAS: Final = re.compile(r"[?&]alias=([\w-]+)")


@dataclass(frozen=True)
class JobEvent:
    """Something that happened to a job, by its own log."""

    job: str
    """`7.0`"""
    code: int
    at: float
    """Seconds since the epoch; HTCondor writes whole ones, and the nodes' clocks show UTC."""
    host: str = ""
    """The node that began to run it."""
    text: str = ""


def read(log: str) -> Iterator[JobEvent]:
    """The events of a log, in its order; what is no event is left out."""
    for block in re.split(r"^\.\.\.$\n?", log, flags=re.MULTILINE):
        lines = block.strip("\n").split("\n", 1)
        head = _HEAD.match(lines[0])
        if head is None:
            continue
        code, cluster, proc, when, said = head.groups()
        host = ""
        if int(code) == EXECUTING:
            found = _SLOT.search(block) or _ALIAS.search(said)
            host = found[1] if found else ""
        at = timegm(strptime(when.replace("T", " "), "%Y-%m-%d %H:%M:%S"))
        yield JobEvent(f"{int(cluster)}.{int(proc)}", int(code), float(at), host, said)
