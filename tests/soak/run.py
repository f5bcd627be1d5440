"""One soak, from the making of its pool to its end."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from roost import Pool, RoostError, specfile
from soak import report, stream
from soak.faults import FAULTS, Act, Hands, Missed
from soak.oracle import RUNNING, Struck, Verdict, verdict
from soak.schedule import USERS, WHOLE_POOL, Schedule, Strike

EXECUTORS: Final = 4
#: The nodes, by role, as the schedule calls them.
NODES: Final = {
    "master": ("master",),
    "submit": ("submit",),
    "execute": tuple(f"execute-{n}" for n in range(1, EXECUTORS + 1)),
}
#: Seconds within which every job must be done once the pool is whole.
DONE_WITHIN: Final = 420.0
#: Seconds for which a victim is watched until it is healthy.
WATCHED: Final = 180.0

POOL: Final = """\
name: {name}
engine: {engine}
submit: {{users: [{users}]}}
execute:
  - {{count: {count}, cpus: 2, memory: 512MiB}}
"""

Say = Callable[[str], None]


@dataclass(frozen=True)
class Outcome:
    """What a soak found."""

    verdict: Verdict
    struck: tuple[Struck, ...]


def soak(plan: Schedule, name: str, engine: str, directory: Path, say: Say) -> Outcome:
    """Make a pool, let everything that is planned happen to it, judge, take it down.

    Raises RoostError if the pool cannot be made, or is not whole again after the faults.
    """
    file = directory / "pool.yaml"
    file.write_text(POOL.format(name=name, engine=engine, users=", ".join(USERS), count=EXECUTORS))
    spec = specfile.load(file, environ={})
    say(f"making the pool {name}: {EXECUTORS} executors, on {engine}")
    with suppress(RoostError):
        Pool.forget(name)
    pool = Pool.up(spec)
    hands = Hands(pool, spec, directory)
    try:
        return _soak(plan, hands, directory, say)
    finally:
        hands.close()
        with suppress(RoostError):
            hands.unhand()
            for node in pool.observe().nodes:
                hands.keep_log(node.name.removeprefix(f"{name}-"))
        pool.down()


def _soak(plan: Schedule, hands: Hands, directory: Path, say: Say) -> Outcome:
    start = time.time()

    def tell(text: str) -> None:
        say(f"{time.time() - start:6.1f} s  {' '.join(text.split())[:300]}")

    hands.tell = tell
    jobs = stream.Stream(hands.pool, plan.batches, directory / "jobs", tell)
    jobs.start(start)
    striking = Striking(hands, plan.strikes, tell)
    try:
        struck = striking.all(start)
        tell("all faults have ended: healing what is left")
        tries = hands.heal()
        tell(f"the pool is whole{'' if tries == 1 else f' after {tries} times `roost up`'}")
        jobs.join(DONE_WITHIN)
    except BaseException:
        striking.stop()
        jobs.stop()
        raise
    _await_jobs(hands.pool, tell)
    evidence = stream.evidence(hands.pool)
    found = verdict(jobs.sent, evidence, struck)
    said = report.as_json(plan, found, struck)
    (directory / "report.json").write_text(json.dumps(said, indent=2) + "\n")
    logs = directory / "events"
    logs.mkdir()
    for file, text in evidence.files.items():
        if file.endswith(".log"):
            (logs / file).write_text(text)
    return Outcome(found, tuple(struck))


def _await_jobs(pool: Pool, tell: Say) -> None:
    """Return once no job is idle or running, or after DONE_WITHIN."""
    until = time.monotonic() + DONE_WITHIN
    tell_at = 0.0
    while True:
        try:
            waiting = [ad for ad in stream.left(pool) if ad["JobStatus"] in RUNNING]
        except RoostError:
            if time.monotonic() > until:
                raise
        else:
            if not waiting or time.monotonic() > until:
                tell(f"jobs that have not ended: {len(waiting)}")
                return
            if time.monotonic() > tell_at:
                tell_at = time.monotonic() + 15
                tell(f"jobs that have not ended yet: {len(waiting)}")
        time.sleep(2)


class Striking:
    """Lets faults strike when they are due, each in a thread of its own."""

    def __init__(self, hands: Hands, strikes: Sequence[Strike], tell: Say) -> None:
        self._hands = hands
        self._strikes = strikes
        self._tell = tell
        self._stopped = threading.Event()
        self._latest = 0

    def stop(self) -> None:
        """Nothing more strikes."""
        self._stopped.set()

    def all(self, start: float) -> list[Struck]:
        """What struck, once all has; `start` is the soak's, in seconds since the epoch."""
        threads = ThreadPoolExecutor(max_workers=8)
        going: list[Future[Struck]] = []
        try:
            for strike in self._strikes:
                if self._stopped.wait(max(0.0, start + strike.at - time.time())):
                    break
                self._latest = strike.number
                going.append(threads.submit(self._one, strike))
            return [each.result() for each in going]
        finally:
            self._stopped.set()
            threads.shutdown(wait=False)  # what still strikes finds no pool

    def _one(self, strike: Strike) -> Struck:
        fault = FAULTS[strike.kind]
        began = time.time()
        self._tell(str(strike))
        if missed := self._tried(fault.begin, strike):
            return Struck(strike, began, time.time(), fault.excuses, missed)
        self._stopped.wait(strike.seconds)
        still = self._tried(fault.end, strike)
        ended = time.time()
        ready = None if still or strike.node == WHOLE_POOL else self._ready(strike, began)
        return Struck(strike, began, ended, fault.excuses, ready=ready)

    def _tried(self, act: Act, strike: Strike) -> str:
        """Why it could not be done; empty if it was."""
        try:
            act(self._hands, strike)
        except (Missed, RoostError) as error:
            why = " ".join(str(error).split())[:300]
            self._tell(f"{strike}: {why}")
            return why
        return ""

    def _ready(self, strike: Strike, began: float) -> float | None:
        """Seconds from `began` until the victim is healthy; None if another fault came first."""
        while time.time() < began + WATCHED and not self._stopped.wait(0.5):
            if self._latest > strike.number + 1:
                return None
            with suppress(RoostError):
                if self._hands.healthy(strike.node):
                    return time.time() - began
        return None
