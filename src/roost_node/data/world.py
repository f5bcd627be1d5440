"""A job's world, seen from inside: its keeper, the first process of a PID namespace.

The keeper mounts, starts the servers, and has a second PID namespace made for the job: so the job
and all that it started are gone at one stroke while the servers live on to write what they hold.
It keeps the capabilities of the user namespace that it was made in; whatever is executed in there
has none.
"""

from __future__ import annotations

import array
import errno
import importlib
import json
import os
import selectors
import shutil
import signal
import socket
import struct
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NoReturn

from roost_node.data import kernel
from roost_node.data.entries import Wish, token_name
from roost_node.data.fusermount import SOCKET
from roost_node.data.kernel import WORK
from roost_node.data.shape import FLUSH, Refused, Request, Server, service

#: Seconds in which what only reads must be gone; then it is killed.
_READERS_END: Final = 5.0
#: Seconds between two questions whether all is written.
_ASK: Final = 0.1
_PATH: Final = "/usr/local/bin:/usr/bin:/bin"
_STATUS: Final = struct.Struct("=ii")

_FLAGS: Final[Mapping[str, int]] = {
    "ro": kernel.RDONLY, "nosuid": kernel.NOSUID, "nodev": kernel.NODEV, "noexec": kernel.NOEXEC,
    "noatime": 1024, "sync": 16, "dirsync": 128,
}  # fmt: skip
#: What the kernel itself takes of a client's mount options.
_KERNELS: Final = ("default_permissions", "allow_other", "max_read=")


@dataclass(frozen=True)
class Task:
    """A job and what it mounts."""

    argv: tuple[str, ...]
    wishes: tuple[Wish, ...]
    scratch: Path
    credentials: Path | None
    """HTCondor's directory of the job's own credentials."""


@dataclass
class _Mount:
    """One mount and its server."""

    wish: Wish
    request: Request
    module: Any
    made: list[Path]
    """Directories in the sandbox that were made for it."""
    server: int = 0
    """Its process; 0 before it is started."""
    prober: int = 0
    """The process that lists the directory for the first time."""
    ready: bool = False
    status: int | None = None
    """How the server ended; None while it runs."""

    @property
    def name(self) -> str:
        return self.wish.entry.name

    def last_words(self) -> str:
        """The last line that its server wrote."""
        with suppress(OSError):
            lines = (self.request.work / "log").read_text(errors="replace").split("\n")
            noise = getattr(self.module, "NOISE", ())
            said = [words for line in lines if (words := line.strip()) and words not in noise]
            if said:
                return said[-1][-300:]
        return ""


def live(task: Task, control: int, report: int, mask: Iterable[int]) -> NoReturn:
    """Be the world of `task` until it ends; then say how on `report`."""
    keeper = _Keeper(task, control, mask)
    status: int | None = None
    problem = ""
    try:
        kernel.die_with_parent()
        keeper.begin()
        status = keeper.run()
    except (Refused, OSError) as error:
        problem = str(error)
    except BaseException as error:  # noqa: BLE001 - nobody else would say it
        problem = f"roost failed: {type(error).__name__}: {error}"
    if status is not None:
        problem = keeper.finish()
    elif keeper.stopped_by:
        status, problem = keeper.stopped_by, ""
    keeper.tidy()
    os.write(report, json.dumps({"status": status, "problem": problem}).encode())
    os._exit(0)  # and with it all that is left in here


class _Keeper:
    def __init__(self, task: Task, control: int, mask: Iterable[int]) -> None:
        self._task = task
        self._control = control
        self._mask = tuple(mask)
        self._mounts: list[_Mount] = []
        self._others: list[str] = []
        """Where the job's own clients mounted."""
        self._events = selectors.DefaultSelector()
        self._job = 0
        self._status: int | None = None
        self._gone = False
        """Whether the job's namespace has ended."""
        self._unmounting = 0
        self._last = 0
        self.stopped_by = 0
        """The signal that came before the job was there."""

    # --- before the job --------------------------------------------------------------------------

    def begin(self) -> None:
        """Mount everything. Raises Refused, OSError."""
        woken, wake = os.pipe()
        for end in (woken, wake):
            os.set_blocking(end, False)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
        with suppress(OSError):  # refused where the container's own hides a part of it
            kernel.mount("proc", "/proc", "proc", kernel.NOSUID | kernel.NODEV | kernel.NOEXEC)
        kernel.workplace()
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        listener.bind(str(SOCKET))
        listener.listen(16)
        self._events.register(woken, selectors.EVENT_READ, lambda: self._reap(woken))
        self._events.register(listener, selectors.EVENT_READ, lambda: self._greet(listener))
        self._events.register(self._control, selectors.EVENT_READ, self._signalled)
        for number, wish in enumerate(self._task.wishes):
            self._mount(number, wish)
        self._await_ready()

    def _mount(self, number: int, wish: Wish) -> None:
        work = WORK / str(number)
        work.mkdir(mode=0o700)
        directory = self._task.scratch / wish.directory
        made = _make(directory, self._task.scratch)
        if any(directory.iterdir()):
            raise _refused(wish, f"{wish.directory} exists in the sandbox and is not empty")
        disk = self._task.scratch / f".data-{number}"
        disk.mkdir(mode=0o700, exist_ok=True)
        module = importlib.import_module(f"roost_node.data.types.{wish.entry.type}")
        try:
            device = kernel.open_fuse()
            try:
                request = Request(wish.entry, wish.write, directory, f"/dev/fd/{device}", work,
                                  self._token(wish), disk)  # fmt: skip
                mount = _Mount(wish, request, module, made)
                self._mounts.append(mount)
                server: Server = module.server(request)
                self._start(mount, server, device)
            finally:
                os.close(device)
            # Only now: whoever holds the device, too, would keep a mount alive whose server died,
            # and wait for its answer for ever.
            if mount.server and not server.opens:
                self._probe(mount)
        except OSError as error:
            raise _refused(wish, (error.strerror or str(error)).lower()) from None
        except Refused as error:
            raise _refused(wish, str(error)) from None

    def _start(self, mount: _Mount, server: Server, device: int) -> None:
        """Start what serves it. Raises OSError."""
        request = mount.request
        flags = 0 if mount.wish.write else kernel.RDONLY
        if server.source is not None:
            _show(server.source, request.directory, flags)
            mount.ready = True
            return
        if not server.opens:
            kernel.mount_fuse(device, str(request.directory), flags=flags, source=mount.name)
        env = {"PATH": _PATH, "HOME": str(request.work), **server.env}
        log = os.open(request.work / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        inherited = -1 if server.opens else device
        mount.server = self._spawn(server.argv, env, request.work, log, inherited)
        os.close(log)

    def _token(self, wish: Wish) -> Path | None:
        """The job's credential for it. Raises Refused."""
        if not wish.entry.token:
            return None
        name = token_name(wish.entry)
        stored = service(name)
        path = self._task.credentials and self._task.credentials / f"{stored}.use"
        if path is None or not path.is_file():
            raise Refused(
                f"the job brought no token; store one with `roost data login {name}` and write "
                f"`use_oauth_services = {stored}` into the submit file"
            )
        return path

    def _probe(self, mount: _Mount) -> None:
        """List the directory, in a process of its own: it may take for ever."""
        mount.prober = os.fork()
        if mount.prober == 0:
            try:
                with os.scandir(mount.request.directory) as found:
                    next(found, None)
            except OSError as error:
                os._exit(error.errno or errno.EIO)
            os._exit(0)

    def _await_ready(self) -> None:
        """Wait until every mount can be listed. Raises Refused."""
        began = time.monotonic()
        while True:
            waiting = [mount for mount in self._mounts if not mount.ready]
            if not waiting:
                return
            for mount in waiting:
                if mount.status is not None:
                    raise _refused(mount.wish, mount.last_words() or _how(mount.status))
            first = min(waiting, key=lambda mount: mount.wish.entry.wait)
            left = began + first.wish.entry.wait - time.monotonic()
            if left <= 0:
                raise _refused(
                    first.wish,
                    f"it was not there after {first.wish.entry.wait:g} s"
                    + (f": {words}" if (words := first.last_words()) else ""),
                )
            self._step(left)
            if self.stopped_by:
                raise Refused("stopped")

    # --- while the job runs ----------------------------------------------------------------------

    def run(self) -> int:
        """Run the job; its wait status, when all that it started is gone, too."""
        status, report = os.pipe()
        orders, self._last = os.pipe()
        self._job = os.fork()
        if self._job == 0:
            os.close(status)
            os.close(self._last)
            _between(self._task.argv, orders, report, self._mask)
        os.close(report)
        os.close(orders)
        self._events.register(status, selectors.EVENT_READ, lambda: self._hear(status))
        while not self._gone and self._status is None:
            self._step(None)
        until = time.monotonic() + self._patience
        while not self._gone and time.monotonic() < until:
            self._step(until - time.monotonic())
        if not self._gone:  # a process waits for a server that does not answer: end that
            self._kill_servers()
            while not self._gone:
                self._step(None)
        if self._status is None:
            return int(signal.SIGKILL)  # somebody killed its first process
        return self._status

    @property
    def _patience(self) -> float:
        writes = any(mount.wish.write for mount in self._mounts)
        return FLUSH if writes else _READERS_END

    def _hear(self, status: int) -> None:
        self._events.unregister(status)
        said = os.read(status, _STATUS.size)
        if len(said) == _STATUS.size:
            kind, self._status = _STATUS.unpack(said)
            if kind:
                raise Refused(f"{self._task.argv[0]} cannot be run: {os.strerror(kind)}")

    def _step(self, timeout: float | None) -> None:
        for key, _ in self._events.select(timeout):
            key.data()

    def _signalled(self) -> None:
        numbers = os.read(self._control, 64)
        if not numbers:
            os._exit(1)  # whoever made this world is gone
        if self._last:
            with suppress(BrokenPipeError):
                os.write(self._last, numbers)
        else:
            self.stopped_by = numbers[0]

    def _reap(self, woken: int) -> None:
        with suppress(BlockingIOError):
            os.read(woken, 512)
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            self._gone = self._gone or pid == self._job
            self._unmounting = 0 if pid == self._unmounting else self._unmounting
            for mount in self._mounts:
                if pid == mount.server:
                    mount.status = status
                elif pid == mount.prober:
                    self._probed(mount, os.waitstatus_to_exitcode(status))

    def _probed(self, mount: _Mount, code: int) -> None:
        if mount.ready or code == 0:
            mount.ready = True
        elif mount.status is None and code == errno.ENOTCONN:
            pass  # its server has just ended, and what it said is more than this
        else:
            words = mount.last_words()
            raise _refused(mount.wish, words or f"it cannot be listed: {os.strerror(code).lower()}")

    # --- who mounts by way of `fusermount3` -------------------------------------------------------

    def _greet(self, listener: socket.socket) -> None:
        client, _ = listener.accept()
        self._events.register(client, selectors.EVENT_READ, lambda: self._serve(client))

    def _serve(self, client: socket.socket) -> None:
        self._events.unregister(client)
        with client:
            device = -1
            try:
                asked = json.loads(client.recv(65536))
                if "unmount" in asked:
                    self._undo(str(asked["unmount"]), bool(asked.get("lazy")))
                else:
                    device = self._do(str(asked["mount"]), [str(word) for word in asked["options"]])
                answer = ""
            except OSError as error:
                answer = f"{error.filename or 'the mount'}: {error.strerror or error}"
            except (ValueError, KeyError, TypeError):
                answer = "this is no request"
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [device]))]
            with suppress(OSError):
                client.sendmsg([answer.encode() or b"\n"], rights if device >= 0 else [])
            if device >= 0:
                os.close(device)

    def _do(self, place: str, words: Sequence[str]) -> int:
        declared = [mount for mount in self._mounts if str(mount.request.directory) == place]
        flags = sum({_FLAGS[word] for word in words if word in _FLAGS})
        if declared and not declared[0].wish.write:
            flags |= kernel.RDONLY
        named = dict(word.partition("=")[::2] for word in words)
        device = kernel.open_fuse()
        try:
            kernel.mount_fuse(
                device, place, flags=flags, kind=named.get("subtype", ""),
                source=named.get("fsname", "fuse"),
                options=tuple(word for word in words if word.startswith(_KERNELS)),
            )  # fmt: skip
        except OSError:
            os.close(device)
            raise
        if declared:
            self._probe(declared[0])
        else:
            self._others.append(place)
        return device

    def _undo(self, place: str, lazy: bool) -> None:
        if place not in self._others:
            raise OSError(errno.EINVAL, "not mounted by this job", place)
        kernel.unmount(place, kernel.DETACH if lazy else 0)
        self._others.remove(place)

    # --- after the job ---------------------------------------------------------------------------

    def finish(self) -> str:
        """Unmount, and have everything written; what is wrong, if it is not all there."""
        for place in reversed(self._others):
            with suppress(OSError):
                kernel.unmount(place, kernel.DETACH)
        until = time.monotonic() + FLUSH
        problems = [problem for mount in self._mounts if (problem := self._close(mount, until))]
        return "; ".join(problems)

    def _close(self, mount: _Mount, until: float) -> str:
        if not mount.server:
            return ""
        while mount.status is None and time.monotonic() < until:
            unwritten, in_vain = _unwritten(mount)
            if in_vain or not unwritten:
                break
            self._step(_ASK)
        self._unmount(mount, until if mount.wish.write else time.monotonic() + _READERS_END)
        if not mount.wish.write:
            return ""
        if not getattr(mount.module, "ENDS", True) and mount.status is None:
            os.kill(mount.server, signal.SIGTERM)
        while mount.status is None and time.monotonic() < until:
            self._step(until - time.monotonic())
        left, _ = _unwritten(mount)
        if mount.status == 0 and not left:
            return ""
        if mount.status is None:
            why = f"it was still writing after {FLUSH:g} s"
        else:
            why = left or mount.last_words() or _how(mount.status)
        return f"what the job wrote to {mount.name} may not be there: {why}"

    def _unmount(self, mount: _Mount, until: float) -> None:
        """Unmount it by a process of its own: a server that does not answer would hold up this."""
        pid = os.fork()
        if pid == 0:
            _leave(str(mount.request.directory))
            os._exit(0)
        self._unmounting = pid
        while self._unmounting and time.monotonic() < until:
            self._step(until - time.monotonic())

    def _kill_servers(self) -> None:
        for mount in self._mounts:
            if mount.server and mount.status is None:
                os.kill(mount.server, signal.SIGKILL)

    def tidy(self) -> None:
        """Leave the sandbox without the directories that were made for mounts."""
        self._kill_servers()
        for mount in reversed(self._mounts):
            _leave(str(mount.request.directory))
            shutil.rmtree(mount.request.disk, ignore_errors=True)
            for made in reversed(mount.made):
                with suppress(OSError):
                    made.rmdir()

    def _spawn(self, argv: Sequence[str], env: Mapping[str, str], cwd: Path, log: int,
               device: int) -> int:  # fmt: skip
        pid = os.fork()
        if pid:
            return pid
        try:
            kernel.die_with_parent()
            restore_signals(self._mask)
            os.setsid()
            os.chdir(cwd)
            empty = os.open("/dev/null", os.O_RDONLY)
            for source, to in ((empty, 0), (log, 1), (log, 2)):
                os.dup2(source, to)
            if device >= 0:
                os.set_inheritable(device, True)
            os.execvpe(argv[0], list(argv), env)  # noqa: S606
        except OSError as error:
            os.write(2, f"{argv[0]} cannot be run: {error.strerror}\n".encode())
        finally:
            os._exit(127)


def _between(argv: Sequence[str], orders: int, report: int, mask: Iterable[int]) -> NoReturn:
    """Make the job's own PID namespace and wait for its end.

    Who makes one can start nothing else afterwards, and the keeper still has to.
    """
    kernel.die_with_parent()
    kernel.new_pids()
    first = os.fork()
    if first == 0:
        _first_process(argv, orders, report, mask)
    for end in (orders, report):
        os.close(end)
    os.waitpid(first, 0)
    os._exit(0)


def _first_process(argv: Sequence[str], orders: int, report: int, mask: Iterable[int]) -> NoReturn:
    """The first process of the job's own PID namespace: when it ends, all in there ends."""
    kernel.die_with_parent()
    signal.set_wakeup_fd(-1)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    failed, failure = os.pipe()
    job = os.fork()
    if job == 0:
        try:
            restore_signals(mask)
            os.execv(argv[0], list(argv))  # noqa: S606
        except OSError as error:
            os.write(failure, bytes([error.errno or errno.EIO]))
        finally:
            os._exit(127)
    os.close(failure)
    reason = os.read(failed, 1)
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    os.set_blocking(woken, False)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
    with selectors.DefaultSelector() as events:
        events.register(woken, selectors.EVENT_READ)
        events.register(orders, selectors.EVENT_READ)
        while True:
            for key, _ in events.select():
                if key.fd == orders:
                    numbers = os.read(orders, 64)
                    if not numbers:
                        os._exit(1)
                    for number in numbers:
                        with suppress(ProcessLookupError):
                            os.kill(job, number)
                    continue
                with suppress(BlockingIOError):
                    os.read(woken, 512)
                for pid, status in _ended():
                    if pid == job:
                        os.write(report, _STATUS.pack(reason[0] if reason else 0, status))
                        os._exit(0)


def _ended() -> list[tuple[int, int]]:
    """The children that have ended, and how."""
    found = []
    with suppress(ChildProcessError):
        while (one := os.waitpid(-1, os.WNOHANG))[0]:
            found.append(one)
    return found


def restore_signals(mask: Iterable[int] | None = None) -> None:
    """What a new program expects of signals: Python ignores two, and this one handles others."""
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    if mask is not None:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _unwritten(mount: _Mount) -> tuple[str, bool]:
    """What its server still has to write, and whether it never will."""
    if not mount.wish.write:
        return "", False
    try:
        return getattr(mount.module, "unwritten", lambda _request: "")(mount.request), False
    except Refused as error:
        return str(error), True


def _make(directory: Path, scratch: Path) -> list[Path]:
    """Make a directory in the sandbox; the directories that were missing, the outermost first."""
    missing = [path for path in (directory, *directory.parents)
               if path.is_relative_to(scratch) and not path.exists()]  # fmt: skip
    directory.mkdir(parents=True, exist_ok=True)
    return list(reversed(missing))


def _show(source: Path, directory: Path, flags: int) -> None:
    """Show a directory of the node in the sandbox. Raises OSError."""
    kernel.mount(str(source), str(directory), "", kernel.BIND | kernel.REC)
    # In a user namespace what restricts a mount already must be said again.
    kept = os.statvfs(directory).f_flag & (kernel.NOSUID | kernel.NODEV | kernel.NOEXEC)
    times = os.statvfs(directory).f_flag & (1024 | 2048)
    relative = (1 << 21) if os.statvfs(directory).f_flag & 4096 else 0
    kernel.mount("none", str(directory), "",
                 kernel.REMOUNT | kernel.BIND | flags | kept | times | relative
                 | kernel.NOSUID | kernel.NODEV)  # fmt: skip


def _leave(directory: str) -> None:
    """Unmount, or at least detach, what is mounted there."""
    for flags in (0, kernel.DETACH):
        try:
            kernel.unmount(directory, flags)
        except OSError:
            continue
        return


def _refused(wish: Wish, why: str) -> Refused:
    return Refused(f"{wish.entry.name} cannot be mounted: {why}")


def _how(status: int) -> str:
    if os.WIFSIGNALED(status):
        return f"its server was killed (signal {os.WTERMSIG(status)})"
    return f"its server ended with status {os.WEXITSTATUS(status)}"
