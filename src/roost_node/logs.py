"""Daemon logs → one labelled stream on the container's stdout, as text or JSON lines.

HTCondor's daemons write files, which rotate (MAX_DEFAULT_LOG); the relay follows them. It writes
down how far it came only after a line is out: a relay that is killed repeats at most its last
lines, and loses none. (HTCondor cannot write to a pipe or /dev/stdout: condor_master then exits
with status 4.)

This runs inside supervisord's process, in every container: it imports next to nothing.
"""

from __future__ import annotations

import ctypes
import os
import select
import struct
import threading
import time

TYPE_CHECKING = False  # typing itself would cost every container 1 MiB
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Final

_DAEMONS: Final = {
    "Sched": "schedd",
    "Start": "startd",
    "Proc": "procd",
    "SharedPort": "shared_port",
    "KBD": "kbdd",
}
#: Bytes read from one file at a time.
_CHUNK: Final = 256 * 1024
#: Seconds for which lines gather, so that a burst costs one wake-up and one write.
_GATHER: Final = 0.05
#: Seconds for which a rotated file is still read: other processes may hold it open.
_LINGER: Final = 5.0


def label(filename: str) -> str:
    """`StarterLog.slot1_2` → `starter slot1_2`; empty if the file is not a log to follow."""
    stem, _, suffix = filename.partition(".")
    if not stem.endswith("Log") or suffix.endswith(("old", "lock")):
        return ""
    name = stem.removesuffix("Log")
    return f"{_DAEMONS.get(name, name.lower())} {suffix}".rstrip()


def line_as_text(daemon: str, message: str) -> str:
    """One line of the stream."""
    return f"{daemon} | {message}\n"


def line_as_json(daemon: str, message: str) -> str:
    """One line of the stream as JSON: time (ISO 8601, UTC), daemon, message."""
    import json  # a text relay never needs it

    stamp, rest = _stamp(message)
    name, _, slot = daemon.partition(" ")
    return json.dumps({"time": stamp, "daemon": name} | ({"slot": slot} if slot else {})
                      | {"message": rest}, ensure_ascii=False) + "\n"  # fmt: skip


def _stamp(message: str) -> tuple[str, str]:
    """The line's own time and the rest of it; now, for a line that has none."""
    try:
        moment = time.strptime(message[:17], "%m/%d/%y %H:%M:%S")
    except ValueError:
        return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), message
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.mktime(moment))), message[18:]


def say(message: str, *, daemon: str = "roost", as_json: bool = False) -> None:
    """Write one labelled line of roost's own to stdout."""
    if not as_json:
        message = time.strftime("%m/%d/%y %H:%M:%S ") + message
    write_all((line_as_json if as_json else line_as_text)(daemon, message).encode())


def write_all(data: bytes) -> None:
    """All of `data` to stdout, however little a pipe takes at once."""
    view = memoryview(data)
    while view:
        view = view[os.write(1, view) :]


class Follower:
    """One log file by name, through its rotations."""

    def __init__(self, path: str, inode: int = 0, offset: int = 0) -> None:
        self.path = path
        self.daemon = label(os.path.basename(path))
        self.inode = inode
        self.offset = offset
        self._file: int | None = None
        self._rotated: list[tuple[int, float]] = []
        if inode:
            self._resume()

    def _resume(self) -> None:
        """Open the file that was being read, also if it was rotated away meanwhile."""
        for candidate in (self.path, f"{self.path}.old"):
            try:
                if os.stat(candidate).st_ino == self.inode:
                    self._file = os.open(candidate, os.O_RDONLY)
                    os.lseek(self._file, self.offset, os.SEEK_SET)
                    return
            except OSError:
                continue
        self.inode = self.offset = 0

    def read(self, now: float) -> Iterator[str]:
        """Every whole line that has come since, the rotated file's first."""
        yield from self._late_lines(now)
        while True:
            if self._file is not None:
                yield from self._lines(self._file, count=True)
            try:
                current = os.stat(self.path).st_ino
            except OSError:
                return
            if current == self.inode:
                return
            if self._file is not None:
                self._rotated.append((self._file, now + _LINGER))
            try:
                self._file = os.open(self.path, os.O_RDONLY)
            except OSError:
                self._file = None
                return
            self.inode, self.offset = os.fstat(self._file).st_ino, 0

    def _late_lines(self, now: float) -> Iterator[str]:
        for file, until in self._rotated:
            yield from self._lines(file, count=False)
            if now >= until:
                os.close(file)
        self._rotated = [(file, until) for file, until in self._rotated if now < until]

    def _lines(self, file: int, *, count: bool) -> Iterator[str]:
        while data := os.read(file, _CHUNK):
            whole = data.rfind(b"\n") + 1
            if whole == 0 and len(data) == _CHUNK:
                whole = len(data)  # a line longer than the buffer goes out in pieces
            os.lseek(file, whole - len(data), os.SEEK_CUR)
            if count:
                self.offset += whole
            if whole == 0:
                return
            yield from data[:whole].decode(errors="replace").splitlines()


class Relay:
    """Follows every log in a directory and writes their lines as one stream."""

    def __init__(
        self,
        directory: str,
        state: str,
        render: Callable[[str, str], str],
        out: Callable[[bytes], None],
    ) -> None:
        self._directory = directory
        self._state = state
        self._render = render
        self._out = out
        self._followers: dict[str, Follower] = {}
        self._saved = ""
        for name, inode, offset in _load(state):
            self._followers[name] = Follower(f"{directory}/{name}", inode, offset)

    def turn(self, names: Iterable[str] | None = None) -> None:
        """Relay what has come in these files (all, if None), then note how far that was."""
        now = time.monotonic()
        for name in sorted(os.listdir(self._directory) if names is None else names):
            if name not in self._followers:
                if not label(name):
                    continue
                self._followers[name] = Follower(f"{self._directory}/{name}")
            follower = self._followers[name]
            text = "".join(self._render(follower.daemon, line) for line in follower.read(now))
            if text:
                self._out(text.encode())
        self._save()

    def _save(self) -> None:
        text = "".join(f"{name}\t{f.inode}\t{f.offset}\n" for name, f in self._followers.items())
        if text == self._saved:
            return
        new = f"{self._state}.new"
        with open(new, "w") as file:
            file.write(text)
        os.replace(new, self._state)
        self._saved = text


def _load(state: str) -> list[tuple[str, int, int]]:
    try:
        with open(state) as file:
            rows = [line.rstrip("\n").split("\t") for line in file]
    except FileNotFoundError:
        return []
    return [(name, int(inode), int(offset)) for name, inode, offset in rows]


_IN_MODIFY: Final = 0x2
_IN_MOVED_TO: Final = 0x80
_IN_CREATE: Final = 0x100
_EVENT: Final = struct.Struct("iIII")


class _Watch:
    """Names of files that changed in a directory, by inotify (the standard library has none)."""

    def __init__(self, directory: str) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        self.fd: int = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        mask = _IN_MODIFY | _IN_MOVED_TO | _IN_CREATE
        if self.fd < 0 or libc.inotify_add_watch(self.fd, os.fsencode(directory), mask) < 0:
            raise OSError(ctypes.get_errno(), f"{directory} cannot be watched")

    def names(self) -> set[str] | None:
        """Names since the last call; None when too many came and every file must be looked at."""
        try:
            data = os.read(self.fd, 65536)
        except BlockingIOError:
            return set()
        found = set()
        while data:
            watch, _mask, _cookie, length = _EVENT.unpack_from(data)
            if watch < 0:
                return None
            name = data[_EVENT.size : _EVENT.size + length].rstrip(b"\0").decode()
            # HTCondor renames X to X.old: it is X's follower that must see it.
            found.add(name.removesuffix(".old"))
            data = data[_EVENT.size + length :]
        return found


class relay:  # noqa: N801 - reads as `with relay(…):`
    """Follows the logs in `directory` in a thread; at the end relays what is left.

    `state` is the file that remembers how far it came, so that the next start of the container
    goes on there. `listen` hears every daemon's every line. A thread and not a program of its own:
    that would be another interpreter in every container.
    """

    def __init__(
        self,
        directory: str,
        state: str,
        listen: Callable[[str, str], None],
        notice: Callable[[], None] = lambda: None,
        *,
        as_json: bool,
        out: Callable[[bytes], None] = write_all,
    ) -> None:
        os.makedirs(directory, exist_ok=True)
        self._watch = _Watch(directory)
        self._notice = notice
        render = line_as_json if as_json else line_as_text

        def heard(daemon: str, line: str) -> str:
            listen(daemon, line)
            return render(daemon, line)

        self._stream = Relay(directory, state, heard, out)
        self._wake, self._bell = os.pipe()
        self._thread = threading.Thread(target=self._follow, daemon=True)

    def __enter__(self) -> relay:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._bell)
        self._thread.join()
        self._stream.turn()

    def _follow(self) -> None:
        self._stream.turn()
        while True:
            readable, _, _ = select.select([self._watch.fd, self._wake], [], [], _LINGER)
            if self._wake in readable:
                return
            if readable:
                time.sleep(_GATHER)
            # Without an event for a while: every file, for what a rotated one may still have got.
            names = self._watch.names() if readable else None
            if names is None or not all(map(label, names)):
                self._notice()
            self._stream.turn(names)
