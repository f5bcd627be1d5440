"""A job event log, as it grows: which job began, ended, was held or removed. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final, Literal

Kind = Literal["running", "ended", "held", "removed"]
_KINDS: Final[dict[str, Kind]] = {"001": "running", "005": "ended", "009": "removed", "012": "held"}
_HEAD: Final = re.compile(r"(\d{3}) \((\d+)\.(\d+)\.\d+\) ")


@dataclass(frozen=True)
class JobEvent:
    """One thing that happened to one job."""

    kind: Kind
    job: tuple[int, int]
    """Cluster and proc."""
    reason: str = ""
    """What the log says about it, in its first line: how it ended, why it is held."""


def events(lines: Iterable[str]) -> Iterator[JobEvent]:
    """What the lines of a log tell; an event is told when it is complete."""
    head: re.Match[str] | None = None
    reason = ""
    for line in lines:
        if head is None:
            head = _HEAD.match(line)
            reason = ""
        elif line.strip() != "...":
            reason = reason or line.strip()
        else:
            if (kind := _KINDS.get(head[1])) is not None:
                yield JobEvent(kind, (int(head[2]), int(head[3])), reason)
            head = None
