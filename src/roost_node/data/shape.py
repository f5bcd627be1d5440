"""What a type of mount is: a module in `types` that answers `server(request)`.

The module of type `x` is `roost_node.data.types.x`, and has

    PROGRAM = "rclone"      the program that the image must have; "" if none
    ENDS = False            optional: it does not end by itself once it is unmounted
    NOISE = ("…",)          optional: lines on stderr that are no reason

    def server(request: Request) -> Server: ...
    def unwritten(request: Request) -> str: ...     optional: see below

`server` says what to run and changes nothing but files in `request.work` and `request.disk`. It
raises Refused, with the end of a sentence, for what cannot be mounted: the job is held with it.

The server is started as the job's user, without capabilities, in the job's mount namespace, and is
either handed the mount or asks for it:

- `Server.opens` False: the mount exists already and `request.target` is `/dev/fd/N`, an open
  /dev/fuse that the server inherits. libfuse from 3.3 on, and libraries on it, take that in place
  of a directory.
- `Server.opens` True: `request.directory` is where it mounts, by calling `fusermount3` or
  `fusermount` as every FUSE client does; what answers to these names in the job's world mounts for
  it.

It stays in the foreground. The mount is ready when its directory can be listed, and its job held if
that takes longer than `Entry.wait`, or the server ends before.

When the job is over all of its processes are killed, the mount is unmounted, and the server has
FLUSH seconds to write what it still holds and end with status 0. Any other end of a writable
mount's server holds the job: the data may not be there. So does what `unwritten` says, if the
module has it: it is asked while the job's end waits for it, and raises Refused, with why, when
waiting is in vain. A reason is the server's last line on stderr.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

#: Seconds that a server may take to write what it still holds.
FLUSH: Final = 600.0


class Refused(Exception):
    """A mount that cannot be made: a sentence without its beginning, which names the mount."""


@dataclass(frozen=True)
class Entry:
    """One of the pool file's `data:`, or a URL."""

    name: str
    """What the pool file calls it; a URL itself."""
    type: str
    options: Mapping[str, Any] = field(default_factory=dict)
    """The type's own keys, as the pool file has them: `host`, `path`, … (roost.data)."""
    token: bool = False
    """Whether a job must show something."""
    read_only: bool = False
    wait: float = 30.0


@dataclass(frozen=True)
class Request:
    """One mount of one job."""

    entry: Entry
    write: bool
    directory: Path
    """Where the job finds it."""
    target: str
    """What a FUSE server is told to mount: `/dev/fd/N`, or the directory if the server opens it."""
    work: Path
    """A directory in memory for the server's own files, gone with the job."""
    token: Path | None = None
    """HTCondor's file of the job's credential, `_CONDOR_CREDS/SERVICE.use`; its JSON has the secret
    in `access_token`."""
    disk: Path = Path("/nonexistent")
    """The same in the sandbox, for what is large: a cache. It counts as the job's disk."""


@dataclass(frozen=True)
class Server:
    """What to run."""

    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    """Beside PATH and HOME, which is `work`."""
    opens: bool = False
    """It mounts by itself, by way of `fusermount3`."""
    source: Path | None = None
    """No server: the directory of the node that is shown. `argv` is empty."""


class Type(Protocol):
    """A module in `types`."""

    PROGRAM: str

    def server(self, request: Request) -> Server: ...


def service(name: str) -> str:
    """What HTCondor's credential store calls the token of the entry `name`.

    No `-`: the submit language would take it for a minus. Names of entries have no `_`.
    """
    return name.replace("-", "_")
