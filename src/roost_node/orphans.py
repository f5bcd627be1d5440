"""Shadows that outlive their schedd.

condor_master ends what a daemon that died leaves behind, but not where no ProcD tracks it, as on
access points. A shadow that lives on fights the one that the next schedd starts for the same job:
each takes the starter away from the other, a hundred times a second (seen).
"""

from __future__ import annotations

import os
import re
import signal

TYPE_CHECKING = False  # supervisord's process imports this: typing would cost every node a MiB
if TYPE_CHECKING:
    from typing import Final

#: condor_master's own words, before it starts the next one two seconds later.
_DIED: Final = re.compile(r"The SCHEDD \(pid \d+\) (?:died due to signal|exited with status [1-9])")


def told(line: str) -> bool:
    """Whether a line of condor_master's log says that the schedd died."""
    return _DIED.search(line) is not None


def end(proc: str = "/proc") -> int:
    """Kill every shadow whose parent is no schedd; how many there were."""
    ended = 0
    for entry in os.listdir(proc):
        if entry.isdigit() and _read(proc, entry, "comm") == "condor_shadow":
            # `7 (condor_shadow) S 1 …`: the fourth field is its parent
            words = _read(proc, entry, "stat").rpartition(")")[2].split()
            if len(words) > 1 and _read(proc, words[1], "comm") != "condor_schedd":
                try:
                    os.kill(int(entry), signal.SIGKILL)
                except ProcessLookupError:
                    continue  # it has just ended by itself
                ended += 1
    return ended


def _read(proc: str, pid: str, name: str) -> str:
    """A file about a process; empty if the process is gone."""
    try:
        with open(f"{proc}/{pid}/{name}", errors="replace") as file:
            return file.read().strip()
    except OSError:
        return ""
