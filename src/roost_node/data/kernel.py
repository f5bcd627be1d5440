"""The system calls that Python 3.11 lacks, and the namespaces of a job's world."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path
from typing import Final

_libc: Final = ctypes.CDLL(None, use_errno=True)

RDONLY: Final = 1
NOSUID: Final = 2
NODEV: Final = 4
NOEXEC: Final = 8
REMOUNT: Final = 32
BIND: Final = 4096
REC: Final = 16384
PRIVATE: Final = 1 << 18
DETACH: Final = 2

_NEWNS: Final = 0x00020000
_NEWUSER: Final = 0x10000000
_NEWPID: Final = 0x20000000
_PDEATHSIG: Final = 1
_KILL: Final = 9

#: Where the servers of a job, and what answers to `fusermount3`, have their files: a directory in
#: memory, in each job's world one of its own.
WORK: Final = Path("/run/roost/job")
FUSE: Final = Path("/dev/fuse")


def _checked(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), what)


def mount(source: str, target: str, kind: str, flags: int, options: str = "") -> None:
    """mount(2). Raises OSError."""
    words = (source.encode(), os.fsencode(target), kind.encode())
    _checked(_libc.mount(*words, ctypes.c_ulong(flags), options.encode() or None), target)


def unmount(target: str, flags: int = 0) -> None:
    """umount2(2). Raises OSError."""
    _checked(_libc.umount2(os.fsencode(target), flags), target)


def die_with_parent() -> None:
    """Be killed when the process that made this one ends, however it ends."""
    _checked(_libc.prctl(_PDEATHSIG, _KILL, 0, 0, 0), "prctl")


def new_pids() -> None:
    """This process's next child is the first process of a PID namespace. Raises OSError."""
    _checked(_libc.unshare(_NEWPID), "unshare")


def enter() -> None:
    """Move into a user and a mount namespace where nobody outside sees a mount; as `new_pids`, too.

    Raises OSError; its `filename` is the step that is not allowed.
    """
    uid, gid = os.getuid(), os.getgid()
    _checked(_libc.unshare(_NEWUSER | _NEWNS | _NEWPID), "unshare")
    for name, text in (
        ("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1"),
    ):  # fmt: skip
        Path("/proc/self", name).write_text(text)
    mount("none", "/", "", REC | PRIVATE)


def workplace() -> None:
    """Make WORK, in memory and this user's own. Raises OSError."""
    mount("roost", str(WORK), "tmpfs", NOSUID | NODEV, "mode=0700,size=64m")


def open_fuse() -> int:
    """A device that a FUSE server may serve, once it is mounted. Raises OSError."""
    return os.open(FUSE, os.O_RDWR | os.O_CLOEXEC)


def mount_fuse(device: int, directory: str, *, flags: int = 0, kind: str = "roost",
               source: str = "fuse", options: tuple[str, ...] = ()) -> None:  # fmt: skip
    """Mount the file system that serves `device`. Raises OSError."""
    words = (f"fd={device}", "rootmode=40000", f"user_id={os.getuid()}",
             f"group_id={os.getgid()}", *options)  # fmt: skip
    mount(source, directory, f"fuse.{kind}" if kind else "fuse", flags | NOSUID | NODEV,
          ",".join(words))  # fmt: skip
