"""What each role's container may do and where it may write: decided by role, measured on HTCondor.

Whatever is not named here a container does not have: no capability, no new privileges by set-uid
programs, and nowhere to write but the places below and its named volumes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Final

from roost_node.vocab import CONDOR_USER, EXECUTE_DIR, LOG_DIR, SPOOL_DIR, STATE_DIR, Role


@dataclass(frozen=True)
class Confinement:
    """The rights of one container, as engines understand them."""

    user: str = ""
    """`UID:GID` that it runs as; the image's own, root, if empty."""
    capabilities: tuple[str, ...] = ()
    """All that it has."""
    read_only: bool = False
    """Whether only tmpfs and volumes may be written."""
    tmpfs: tuple[str, ...] = ()
    """Places in memory, `user`'s own, for what is small and may be gone after a restart.

    Nobody else may write there: that would be, for one, to configure HTCondor.
    """
    volumes: tuple[str, ...] = ()
    """Paths of nameless volumes, on the engine's disk; they begin as what the image has there."""
    pids: int | None = None
    """The most processes and threads; the engine's own limit if None."""
    mounts: bool = False
    """Whether its jobs mount data, each in a world of its own: it has /dev/fuse, and SECCOMP in
    place of the engine's own profile. No capability is needed for that."""


#: The engine's default list of system calls (from github.com/moby/profiles v0.2.3), and three more:
#: unshare, mount, umount2.
SECCOMP: Final = Path(str(files("roost"))) / "seccomp.json"
FUSE: Final = "/dev/fuse"

#: HTCondor's daemons change between root, `condor` and the owner of a job or slot (SETUID, SETGID),
#: hand files over to them (CHOWN), clear away theirs (DAC_OVERRIDE), and end their processes (KILL:
#: without it a removed job lived 44 s). With fewer, condor_procd dies.
_SWITCHING: Final = ("CHOWN", "DAC_OVERRIDE", "KILL", "SETGID", "SETUID")
#: Users are made in a running access point, by `useradd`, which sets modes of homes that it has
#: given away already.
_ACCOUNTS: Final = ("FOWNER",)

_CONFIG: Final = "/etc/condor/config.d"
_TEMPORARY: Final = ("/tmp", "/var/tmp")  # noqa: S108 - the container's

#: A container's where the pool file says nothing: wide, so that only what runs away meets it before
#: the machine does. Not measured on a large pool.
MASTER_MEMORY: Final = 2 * 2**30
SUBMIT_MEMORY: Final = 8 * 2**30

#: A collector and its helpers, and somebody who looks at them.
_MASTER_PIDS: Final = 512
#: A shadow for each running job, and the users' own processes.
_SUBMIT_PIDS: Final = 32768
#: HTCondor's own, and those of the jobs on each CPU.
_EXECUTE_PIDS: Final = 512
_PIDS_OF_CPU: Final = 1024


def confinement(role: Role, cpus: float | None, *, mounts: bool = False) -> Confinement:
    """The rights of a node of `role`, with jobs on `cpus` CPUs that mount data or not."""
    match role:
        case "master":
            return Confinement(
                user=CONDOR_USER,
                read_only=True,
                tmpfs=("/run", _CONFIG, _TEMPORARY[0]),
                volumes=(LOG_DIR, SPOOL_DIR, STATE_DIR),
                pids=_MASTER_PIDS,
            )
        case "submit":
            # Not read-only: useradd writes /etc/passwd by putting another in its place, and Docker
            # reads there, past any volume, who the user of `docker exec --user` is.
            return Confinement(capabilities=(*_SWITCHING, *_ACCOUNTS), pids=_SUBMIT_PIDS)
        case "execute":
            # What jobs write lies on the disk: in memory it would count against theirs.
            return Confinement(
                capabilities=_SWITCHING,
                read_only=True,
                tmpfs=("/run", _CONFIG),
                volumes=(*_TEMPORARY, EXECUTE_DIR, LOG_DIR, STATE_DIR),
                pids=_EXECUTE_PIDS + _PIDS_OF_CPU * math.ceil(cpus or 1),
                mounts=mounts,
            )


def as_root(confined: Confinement) -> Confinement:
    """The same for a container whose files keep the owner that they have on the machine.

    Only root with DAC_OVERRIDE can read those; it changes to HTCondor's user by itself.
    """
    if not confined.user:
        return confined
    return replace(confined, user="", capabilities=_SWITCHING)
