"""Draining executors of a pool: no new jobs, the running ones finish, after a limit they move.

The work is done inside the node, by `roost-node drain`. Here it is begun, watched and taken back.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from roost.engines.base import Engine, Event
from roost.errors import EngineError, PoolNotReady
from roost.plan import Ref

#: Seconds for one question to a node: a busy machine is slow.
_PATIENCE: Final = 120.0
#: Seconds between two looks: the first few are quick.
_LOOKS: Final = (0.5, 5.0)
_PARALLEL: Final = 8


@dataclass(frozen=True)
class Waiting:
    """A job that a drain waits for."""

    id: str
    owner: str
    seconds: int

    def __str__(self) -> str:
        return f"{self.id} of {self.owner} ({_spoken(self.seconds)})"


def _spoken(seconds: int) -> str:
    minutes, rest = divmod(seconds, 60)
    hours, left = divmod(minutes, 60)
    if hours:
        return f"{hours} h {left} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


class Drainer:
    """Drains the executors of one pool, side by side.

    `limit` is for how many seconds their jobs may go on running; for ever if None.
    """

    def __init__(
        self,
        engine: Engine,
        pool: str,
        *,
        limit: float | None = None,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.engine = engine
        self.pool = pool
        self.limit = limit
        self.vacated: list[str] = []
        """The jobs that were sent away when the limit was over."""
        self._sleep = sleep
        self._clock = clock

    def drain(self, refs: Sequence[Ref]) -> Iterator[Event]:
        """Return once none of these runs a job or will; yields which jobs it waits for.

        What is gone or stands still is drained. Raises PoolNotReady if a node cannot be drained.
        """
        until = None if self.limit is None else self._clock() + self.limit
        left = list(refs)
        told: dict[Ref, list[str]] = {}
        sent: set[Ref] = set()
        pause = _LOOKS[0]
        while True:
            due = until is not None and self._clock() >= until
            for ref, jobs in zip(left, self._look(left, due), strict=True):
                if jobs is None:
                    yield Event("drained", ref)
                elif due and ref not in sent:
                    sent.add(ref)
                    self.vacated += [job.id for job in jobs]
                    yield Event("waiting", ref, f"the limit is over for {_listed(jobs)}")
                elif ref not in sent and told.get(ref) != [job.id for job in jobs]:
                    yield Event("waiting", ref, f"for {_listed(jobs)}")
                told[ref] = [] if jobs is None else [job.id for job in jobs]
                if jobs is None:
                    told.pop(ref)
            left = [ref for ref in left if ref in told]
            if not left:
                return
            soon = pause if until is None or due else min(pause, max(0.1, until - self._clock()))
            self._sleep(soon)
            pause = min(_LOOKS[1], pause * 1.5)

    def _look(self, refs: Sequence[Ref], due: bool) -> list[list[Waiting] | None]:
        with ThreadPoolExecutor(_PARALLEL, thread_name_prefix="roost-drain") as threads:
            return list(threads.map(lambda ref: self._jobs(ref, due), refs))

    def _jobs(self, ref: Ref, due: bool) -> list[Waiting] | None:
        """The jobs that the node runs; None once it is drained. Begins the drain, or keeps it up.

        If `due`, its jobs are sent away: they run again elsewhere.
        """
        argv = ["roost-node", "drain", "--json", *(["--limit", "0"] if due else [])]
        try:
            done = self.engine.exec(ref, argv, timeout=_PATIENCE)
        except EngineError:
            if self._runs(ref):
                raise
            return None
        if done.status != 0:
            if not self._runs(ref):
                return None
            said = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
            raise PoolNotReady(
                f"{ref.name} cannot be drained: {said.removeprefix('roost-node: ')}",
                advice="use --force to let its jobs run again elsewhere",
            )
        data: dict[str, Any] = json.loads(done.text)
        return None if data["drained"] else [Waiting(**job) for job in data["jobs"]]

    def _runs(self, ref: Ref) -> bool:
        nodes = self.engine.observe(self.pool).nodes
        return any(node.name == ref.name and node.state == "running" for node in nodes)

    def cancel(self, refs: Sequence[Ref]) -> Iterator[Event]:
        """Let these take jobs again; yields those that do."""
        for ref in refs:
            with suppress(EngineError):
                argv = ["roost-node", "drain", "--cancel"]
                if self.engine.exec(ref, argv, timeout=_PATIENCE).status == 0:
                    yield Event("resumed", ref, "it takes jobs again")


def _listed(jobs: Sequence[Waiting]) -> str:
    """`3.0 of john (2 min 5 s), 3.1 of john (4 s)`."""
    return ", ".join(map(str, jobs)) or "a claim to end"
