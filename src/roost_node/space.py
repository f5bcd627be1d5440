"""Whether there is room for jobs in the spool."""

from __future__ import annotations

import os

from roost_node.vocab import SPOOL_FULL

TYPE_CHECKING = False  # supervisord's process imports this: typing would cost every node a MiB
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Final

#: What the schedd reads of this.
CONF: Final = "/etc/condor/config.d/40-space.conf"

#: Kept for the jobs that are there already: a twentieth of the disk, at most this, in bytes.
RESERVE: Final = 64 * 2**20
#: A file that takes that space as long as nobody needs it. When the disk is full it goes, so that
#: the schedd can write how the jobs end: what it cannot write to its history is lost.
BALLAST: Final = "roost.reserve"


def is_full(path: str) -> bool:
    """Whether no more jobs should come to `path`; False where there is no such place."""
    try:
        disk = os.statvfs(path)
    except OSError:
        return False
    needed = _reserve(disk) * (1 if os.path.exists(f"{path}/{BALLAST}") else 2)
    # A file system without a fixed number of inodes says that it has none in all.
    return disk.f_bavail * disk.f_frsize < needed or (disk.f_files > 0 and disk.f_favail == 0)


def _reserve(disk: os.statvfs_result) -> int:
    return min(disk.f_blocks * disk.f_frsize // 20, RESERVE)


def configuration(full: bool) -> str:
    """What the schedd answers to a submission now."""
    return f"""\
# Written by roost-node whenever the spool has become full, or is not any more.
SUBMIT_REQUIREMENT_RoostSpace = {not full}
SUBMIT_REQUIREMENT_RoostSpace_REASON = "{SPOOL_FULL}"
"""


class Watch:
    """Keeps the schedd told. Also called from the relay's thread: a change may be told twice."""

    def __init__(self, spool: str, changed: Callable[[bool], None], conf: str = CONF) -> None:
        self._spool, self._changed, self._conf = spool, changed, conf
        self._full = is_full(spool)
        self._act()

    def look(self) -> bool:
        """Whether the spool is full now; calls `changed` if that is new."""
        full = is_full(self._spool)
        if full != self._full:
            self._full = full
            self._act()
            self._changed(full)
        return full

    def _act(self) -> None:
        with open(self._conf, "w") as conf:
            conf.write(configuration(self._full))
        ballast = f"{self._spool}/{BALLAST}"
        try:
            if self._full:
                os.unlink(ballast)
            elif not os.path.exists(ballast):
                with open(ballast, "wb") as file:
                    os.posix_fallocate(file.fileno(), 0, _reserve(os.statvfs(self._spool)))
        except OSError:  # it is gone already, or this disk cannot do that: the schedd lives without
            return
