"""When a daemon that condor_master starts again and again is beyond hope."""

from __future__ import annotations

import re

TYPE_CHECKING = False  # supervisord's process imports this: typing would cost every node a MiB
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Final

#: condor_master's own words for a daemon's end: "The SCHEDD (pid 42) exited with status 4".
_EXITED: Final = re.compile(
    r"The (\w+) \(pid \d+\) (?:exited with status|died due to signal) (\d+)"
)

#: Ends in a row after which a daemon is given up.
GIVE_UP_AFTER: Final = 6
#: Seconds without an end after which a daemon counts as well again; condor_master waits for up to
#: 60 s (MASTER_BACKOFF_CEILING) before it starts one anew.
STEADY: Final = 120.0


def _no(_daemon: str) -> bool:
    return False


class Patience:
    """Counts the ends of each daemon, as condor_master's log tells them."""

    def __init__(self) -> None:
        self._ends: dict[str, list[float]] = {}

    def hear(self, line: str, now: float, *, helpless: Callable[[str], bool] = _no) -> str:
        """A sentence if this line, heard at `now` (seconds), is one too many; else nothing.

        `helpless` says whether a daemon ends for want of something that may come back by itself:
        then it is not given up.
        """
        match = _EXITED.search(line)
        if match is None or match[2] == "0":
            return ""
        daemon, status = match[1].lower(), match[2]
        ends = self._ends.setdefault(daemon, [])
        if helpless(daemon):
            ends.clear()
            return ""
        if ends and now - ends[-1] > STEADY:
            ends.clear()
        ends.append(now)
        if len(ends) < GIVE_UP_AFTER:
            return ""
        return (
            f"the {daemon} ended {GIVE_UP_AFTER} times in a row, the last time with status "
            f"{status}; its own log lines above say why"
        )
