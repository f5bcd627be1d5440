"""One job for each task: functions of this program run in the pool, with its own Python."""

from __future__ import annotations

import atexit
import io
import queue
import tarfile
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor, Future, InvalidStateError, as_completed
from contextlib import suppress
from importlib.resources import files as resources
from typing import Any, Final, TypeVar

import cloudpickle

from roost.errors import EngineError, JobError, PoolNotReady, RoostError
from roost.queue.jobs import DIRECTORY, quoted
from roost.work import scripts
from roost.work.access import Access, description, lines, names
from roost.work.bundle import Bundle
from roost.work.events import JobEvent, events

T = TypeVar("T")
#: Seconds for which tasks, and ends of tasks, gather: one command serves them all.
_GATHER: Final = 0.05
#: Seconds for which an access point that does not answer is waited for.
_OUTAGE: Final = 300.0

JobId = tuple[int, int]


class RemoteTraceback(Exception):
    """Where a task failed: the cause of what its result raises."""

    def __str__(self) -> str:
        return f"\n{self.args[0]}"


class Task(Future[Any]):
    """What will come of one task."""

    def __init__(self, wake: Callable[[Task], None], name: str, pickled: bytes) -> None:
        super().__init__()
        self._wake = wake
        self.name = name
        self.pickled = pickled
        self.job: JobId | None = None
        """Its job, once it was submitted."""

    def cancel(self) -> bool:
        """Take it out of the queue; False if it runs already or has ended."""
        before = self.cancelled()
        done = super().cancel()
        if done and not before:
            self.set_running_or_notify_cancel()
            self._wake(self)
        return done


class JobExecutor(Executor):
    """A `concurrent.futures.Executor`: each task is a job in the pool.

    As a context manager it waits for all tasks at the end; if the body raises, it removes them.
    """

    def __init__(self, access: Access, bundle: Bundle, submit: Mapping[str, object]) -> None:
        self._access = access
        self._more = submit
        description(_commands("", ""), submit, "")  # says at once what is wrong with it
        self._python = access.python(bundle)
        self._root = access.directory()
        self._inbox: queue.SimpleQueue[Task | JobEvent | RoostError | None] = queue.SimpleQueue()
        self._open: dict[str, Task] = {}
        """Tasks that have not ended, by name."""
        self._jobs: dict[JobId, Task] = {}
        self._count = 0
        self._closed = False
        self._over = threading.Event()
        self._lock = threading.Lock()
        self._log = access.follow(self._root)
        self._worker = threading.Thread(target=self._work, daemon=True)
        self._worker.start()
        threading.Thread(target=self._follow, daemon=True).start()
        # A program that ends without a word leaves no jobs behind.
        atexit.register(self._leave)

    # --- the caller's side ----------------------------------------------------------------------

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """Call `fn` with these arguments in a job of its own."""
        pickled = cloudpickle.dumps((fn, args, kwargs))
        with self._lock:
            if self._closed:
                raise RuntimeError("this executor was shut down")
            self._count += 1
            task = Task(self._inbox.put, f"{self._count}", pickled)
            self._open[task.name] = task
            self._inbox.put(task)
        return task

    def map_all(
        self,
        fn: Callable[[Any], T],
        items: Iterable[Any],
        progress: Callable[[int, int], None] | None = None,
    ) -> list[T]:
        """What `fn` gives for each of the items; the first exception is raised.

        `progress` is told how many are done, of how many.
        """
        futures = [self.submit(fn, item) for item in items]
        for done, future in enumerate(as_completed(futures), 1):
            future.result()
            if progress:
                progress(done, len(futures))
        return [future.result() for future in futures]

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more tasks; those that were given are done first, or taken out of the queue."""
        with self._lock:
            closing, self._closed = not self._closed, True
        if cancel_futures:
            for task in list(self._open.values()):
                task.cancel()
        if closing:
            self._inbox.put(None)
        if wait:
            self._worker.join()
            atexit.unregister(self._leave)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            self._leave()
        self.shutdown()

    def _leave(self) -> None:
        """Remove every job, also those that run."""
        self.shutdown(wait=False, cancel_futures=True)
        self._inbox.put(JobError("the program that had asked for it ended"))
        self._worker.join()

    # --- the thread that speaks to the access point ---------------------------------------------

    def _work(self) -> None:
        """Take what comes in turns, until all is done."""
        closed = False
        try:
            while not closed or self._open:
                came = _gathered(self._inbox)
                closed = closed or None in came
                tasks = [each for each in came if isinstance(each, Task)]
                self._submit([task for task in tasks if task.job is None])
                self._forget([task for task in tasks if task.cancelled()])
                self._happened([each for each in came if isinstance(each, JobEvent)])
                _raise_first(came)
        except Exception as error:  # noqa: BLE001 - who waits for a task hears of it, whatever it is
            with self._lock:
                self._closed = True
            for task in self._open.values():
                if not task.done():
                    task.set_exception(error)
        finally:
            self._over.set()
            self._log.close()  # which discards what is left

    def _submit(self, tasks: Sequence[Task]) -> None:
        tasks = [task for task in tasks if not task.cancelled()]
        if not tasks:
            return
        name = f"{tasks[0].name}.sub"
        text = description(
            _commands(self._python, self._root), self._more, names([task.name for task in tasks])
        )
        there = resources("roost.work") / "there"
        archive = tar(
            {name: text.encode()}
            | {each: (there / each).read_bytes() for each in ("task.sh", "task.py")}
            | {f"{task.name}.task": task.pickled for task in tasks}
        )
        cluster = _patiently(lambda: self._access.submit(self._root, name, archive))
        for proc, task in enumerate(tasks):
            task.pickled = b""
            task.job = (cluster, proc)
            self._jobs[task.job] = task
        self._forget([task for task in tasks if task.cancelled()])

    def _forget(self, tasks: Sequence[Task]) -> None:
        """These were cancelled, or are lost: their jobs go."""
        for task in tasks:
            self._open.pop(task.name, None)
        jobs = [task.job for task in tasks if self._jobs.pop(task.job or (0, 0), None)]
        if jobs:
            ids = [f"{job[0]}.{job[1]}" for job in jobs if job]
            _patiently(lambda: self._access.run(scripts.REMOVE, *ids))

    def _happened(self, came: Iterable[JobEvent]) -> None:
        ended: dict[str, tuple[Task, JobEvent]] = {}
        lost: list[Task] = []
        for event in came:
            task = self._jobs.get(event.job)
            if task is None:
                continue
            if event.kind == "running":
                if not task.running() and not task.done():
                    with suppress(RuntimeError):  # cancelled just now
                        task.set_running_or_notify_cancel()
            elif event.kind == "ended":
                ended[task.name] = task, event
            else:
                lost.append(task)
                _fail(task, f"was {event.kind}: {event.reason or 'no reason given'}")
        self._forget(lost)
        if ended:
            wanted = [f"{name}.{kind}" for name in ended for kind in ("result", "said")]
            fetched = _patiently(lambda: self._access.surely(scripts.FETCH, self._root, *wanted))
            self._settle(ended, untar(fetched.stdout))

    def _settle(
        self, ended: Mapping[str, tuple[Task, JobEvent]], came: Mapping[str, bytes]
    ) -> None:
        for name, (task, event) in ended.items():
            result = came.get(f"{name}.result", b"")
            said = came.get(f"{name}.said", b"").decode(errors="replace").strip()
            if result:
                settle(task, result)
            else:
                last = said.splitlines()[-1] if said else event.reason
                _fail(task, f"ended without a result: {last}")
            self._open.pop(name, None)
            self._jobs.pop(event.job, None)

    # --- the thread that reads the log ----------------------------------------------------------

    def _follow(self) -> None:
        """Tell of every event; a log that breaks off with its access point is read anew."""
        until = time.monotonic() + _OUTAGE
        while True:
            for event in events(lines(self._log)):
                until = time.monotonic() + _OUTAGE
                self._inbox.put(event)
            if self._over.wait(1):
                return
            if time.monotonic() > until:
                self._inbox.put(PoolNotReady(f"{self._access.ref.name} does not answer any more"))
                return
            self._log = self._access.follow(self._root)


def _patiently(call: Callable[[], T]) -> T:
    """What `call` gives, also if the access point must come back first: its files do, too."""
    until = time.monotonic() + _OUTAGE
    while True:
        try:
            return call()
        except (EngineError, PoolNotReady):
            if time.monotonic() > until:
                raise
        time.sleep(1)


def _commands(python: str, root: str) -> dict[str, object]:
    return {
        "executable": "task.sh",
        "arguments": "$(name)",
        "transfer_input_files": f"{python}/python.tar.gz, task.py, $(name).task",
        # By name: to look for new files the starter would wait for a second.
        "transfer_output_files": "$(name).result",
        "should_transfer_files": "YES",
        "when_to_transfer_output": "ON_EXIT",
        "output": "$(name).said",
        "error": "$(name).said",
        "log": "log",
        "JobBatchName": "tasks",
        f"+{DIRECTORY}": quoted(root),
    }


def _gathered(inbox: queue.SimpleQueue[Any]) -> list[Any]:
    """The next of the inbox, and what comes within a moment after it."""
    came = [inbox.get()]
    until = time.monotonic() + _GATHER
    with suppress(queue.Empty):
        while True:
            came.append(inbox.get(timeout=max(0.0, until - time.monotonic())))
    return came


def _raise_first(came: Iterable[object]) -> None:
    for each in came:
        if isinstance(each, RoostError):
            raise each


def _fail(task: Task, what: str) -> None:
    assert task.job is not None
    cluster, proc = task.job
    with suppress(InvalidStateError):  # cancelled
        task.set_exception(JobError(f"the job {cluster}.{proc} of a task {what}"))


def settle(task: Task, result: bytes) -> None:
    """What the task returned or raised becomes the future's."""
    if task.done():
        return  # it was cancelled at its end
    try:
        value, traceback = cloudpickle.loads(result)
    except Exception as error:  # noqa: BLE001 - unpickling may raise anything
        task.set_exception(error)
        return
    if traceback is None:
        task.set_result(value)
        return
    value.__cause__ = RemoteTraceback(traceback)
    task.set_exception(value)


def tar(members: Mapping[str, bytes]) -> bytes:
    """Files by name, for their owner alone."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(data), 0o700
            archive.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def untar(data: bytes) -> dict[str, bytes]:
    """The files of an archive, by name."""
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        return {
            member.name: content.read()
            for member in archive
            if (content := archive.extractfile(member))
        }
