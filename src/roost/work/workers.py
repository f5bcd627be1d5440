"""Dask in the pool: workers that are jobs take many tasks each.

Dask's own HTCondor cluster (dask-jobqueue) wants condor_submit, a scheduler that executors reach,
and its Python on every one of them, there where the program runs. Here the scheduler is on the
access point, where all that is at hand, and a tunnel leads to it.
"""

from __future__ import annotations

import atexit
import json
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Executor, Future
from importlib.resources import files as resources
from typing import TYPE_CHECKING, Any, Final, TypeVar

from roost._run import Piped
from roost.errors import BadInput, JobError
from roost.queue.jobs import DIRECTORY, quoted
from roost.work import scripts
from roost.work.access import Access, description
from roost.work.bundle import Bundle
from roost.work.tasks import tar
from roost.work.tunnel import Tunnel

if TYPE_CHECKING:
    from distributed import Client

T = TypeVar("T")
#: Seconds for which a worker waits for a scheduler that does not answer, before its job ends.
_PATIENCE: Final = 60
#: Items that go to a worker at once, at most: progress is seen, and a failure noticed, after these.
_LARGEST: Final = 100
_KEYS: Final = ("tls_ca_file", *(
    f"tls_{role}_{part}" for role in ("scheduler", "worker") for part in ("key", "cert")
))  # fmt: skip


def chunk(items: int, slots: int) -> int:
    """How many items go to a worker at once: one, but of many so many that each worker is asked
    some 30 times. Dask needs about a millisecond for each."""
    return min(_LARGEST, max(1, items // (slots * 32)))


def _said_better(error: BaseException) -> BaseException:
    """What Dask says about a module that its scheduler does not have."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, ModuleNotFoundError):
        cause = cause.__cause__
    if cause is None:
        return error
    return BadInput(
        f"the tasks need the module {cause.name!r}, which did not go along",
        advice=f"packages=[{cause.name!r}] takes it along",
    )


class Workers(Executor):
    """A `concurrent.futures.Executor` whose tasks run in a few jobs that stay.

    `client` is Dask's own, with all that it can do. At the end, also of a `with` that raises, the
    workers' jobs leave the queue.
    """

    def __init__(
        self,
        access: Access,
        bundle: Bundle,
        count: int,
        submit: Mapping[str, object],
        *,
        threads: int,
        memory: int,
    ) -> None:
        try:
            from distributed import Client
            from distributed.security import Security
        except ImportError:
            raise BadInput(
                "workers need Dask, which is not in this Python",
                advice="install it: pip install 'roost[dask]'",
            ) from None
        description(self._commands("", "", threads, memory), submit, "")
        self._access = access
        self._slots = count * threads
        python = access.python(bundle)
        there = resources("roost.work") / "there"
        security = Security.temporary()
        keys = {name: getattr(security, name) for name in _KEYS}
        self._root = access.directory()
        self._tunnel: Tunnel | None = None
        self._scheduler: Piped | None = None
        # A program that ends without a word leaves no jobs behind.
        atexit.register(self.shutdown, False)
        try:
            program = (there / "scheduler.py").read_text()
            self._scheduler = Piped(access.command(scripts.SCHEDULE, self._root, python, program))
            self._scheduler.say(json.dumps(keys).encode() + b"\n")
            port = self._port()
            worker = {
                "scheduler": f"tls://{access.ref.name}:{port}", "security": keys,
                "threads": threads, "memory": memory * 2**20, "patience": _PATIENCE,
            }  # fmt: skip
            commands = self._commands(python, self._root, threads, memory)
            text = description(commands, submit, f"queue {count}")
            archive = tar({
                "workers.sub": text.encode(),
                "worker.json": json.dumps(worker).encode(),
                **{name: (there / name).read_bytes() for name in ("worker.sh", "worker.py")},
            })  # fmt: skip
            access.submit(self._root, "workers.sub", archive)
            relay = (there / "relay.py").read_text()
            self._tunnel = Tunnel(access.command(scripts.RELAY, relay, port))
            self.client: Client = Client(
                f"tls://127.0.0.1:{self._tunnel.port}", security=security, timeout=60,
                set_as_default=False,
            )  # fmt: skip
            self._futures = self.client.get_executor(pure=False)
        except BaseException:
            self.shutdown(wait=False)
            raise

    def _port(self) -> str:
        """Where the scheduler listens. Raises JobError if it did not start."""
        assert self._scheduler is not None
        port = self._scheduler.hear().decode(errors="replace").strip()
        if not port.isdecimal():
            raise JobError(f"Dask's scheduler did not start on {self._access.ref.name}: {port}")
        return port

    @staticmethod
    def _commands(python: str, root: str, threads: int, memory: int) -> dict[str, object]:
        return {
            "executable": "worker.sh",
            "transfer_input_files": f"{python}/python.tar.gz, worker.py, worker.json",
            "transfer_output_files": '""',
            "should_transfer_files": "YES",
            "when_to_transfer_output": "ON_EXIT",
            "request_cpus": threads,
            "request_memory": memory,
            "output": "worker-$(Process).said",
            "error": "worker-$(Process).said",
            "log": "log",
            # One that was killed begins again; one whose scheduler has ended leaves.
            "on_exit_remove": "ExitBySignal == False && ExitCode == 0",
            "+RoostKeepKilled": "True",
            "JobBatchName": "workers",
            f"+{DIRECTORY}": quoted(root),
        }

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """Call `fn` with these arguments in one of the workers."""
        future: Future[T] = self._futures.submit(fn, *args, **kwargs)
        return future

    def map_all(
        self,
        fn: Callable[[Any], T],
        items: Iterable[Any],
        progress: Callable[[int, int], None] | None = None,
    ) -> list[T]:
        """What `fn` gives for each of the items; the first exception is raised.

        `progress` is told how many are done, of how many.
        """
        from distributed import as_completed

        def each(part: Iterable[Any]) -> list[T]:  # here, so that it is pickled by its value
            return [fn(item) for item in part]

        todo = list(items)
        size = chunk(len(todo), self._slots)
        parts = [todo[start : start + size] for start in range(0, len(todo), size)]
        sizes = {}
        futures = self.client.map(each, parts, pure=False)
        for future, part in zip(futures, parts, strict=True):
            sizes[future.key] = len(part)
        done = 0
        try:
            for batch in as_completed(futures, loop=self.client.loop).batches():
                for future in batch:
                    if future.status != "finished":
                        future.result()
                    done += sizes[future.key]
                if progress:
                    progress(done, len(todo))
            return [result for part in self.client.gather(futures) for result in part]
        except RuntimeError as error:
            raise _said_better(error) from error
        finally:
            if done < len(todo):
                self.client.cancel(futures)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Wait for the tasks unless told otherwise; then the workers and the scheduler end."""
        atexit.unregister(self.shutdown)
        client, self_futures = getattr(self, "client", None), getattr(self, "_futures", None)
        if client is not None:
            if self_futures is not None:
                self_futures.shutdown(wait=wait and not cancel_futures)
            client.close()
        if self._tunnel is not None:
            self._tunnel.close()
        if self._scheduler is not None:
            self._scheduler.close()  # which tells the workers, and discards what is left

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.shutdown(wait=kind is None)
