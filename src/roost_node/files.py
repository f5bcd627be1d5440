"""Small files that must never be half-written, and input files whose faults are one sentence."""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from roost_node.errors import BadInput

#: More than any certificate, key or token that this project reads, in bytes.
MAX_INPUT = 64 * 1024


def read(path: Path, what: str) -> bytes:
    """The content of an input file. Raises BadInput when it cannot be had; `what` names it."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_INPUT + 1)
    except FileNotFoundError:
        raise BadInput(f"{what} {path} does not exist") from None
    except IsADirectoryError:
        raise BadInput(
            f"{what} {path} is a directory, not a file; an engine makes one when the file to mount"
            " does not exist on the host"
        ) from None
    except PermissionError:
        raise BadInput(
            f"{what} {path} is unreadable for this user; run this as root or as the file's owner"
        ) from None
    except OSError as error:
        raise BadInput(f"{what} {path} cannot be read: {error.strerror}") from None
    if len(content) > MAX_INPUT:
        raise BadInput(f"{what} {path} is larger than {MAX_INPUT // 1024} KiB: not one at all")
    return content


def write(path: Path, content: bytes, mode: int = 0o600) -> None:
    """Put `content` at `path`, all or nothing, also across a crash of the machine.

    The file gets its directory's owner when root writes it, so that a daemon with less privilege
    reads what `docker exec` (root) wrote.
    """
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(file.fileno(), mode)
            if os.geteuid() == 0:
                owner = path.parent.stat()
                os.fchown(file.fileno(), owner.st_uid, owner.st_gid)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


@contextmanager
def locked(directory: Path) -> Iterator[Callable[[], bool]]:
    """One thread of one process at a time; the lock goes with its holder, whatever ends it.

    Gives a question: is what was locked still the directory of that name?
    """
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def still_there() -> bool:
        try:
            return os.path.samestat(os.fstat(descriptor), directory.stat())
        except FileNotFoundError:
            return False

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield still_there
    finally:
        os.close(descriptor)
