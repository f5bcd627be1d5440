"""What is measured, and how a figure of roost compares with the stock one."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

from bench import pools
from bench.containers import Engine, cpu_ms, memory
from bench.pools import Side

EXECUTORS = 2
#: Slots of each executor in the test of many jobs; a minicondor has one for each of the machine's.
SLOTS = 4
#: How many executors are added to see what one really adds.
FURTHER = 6
#: How long a pool is left alone before its memory is read, in seconds.
SETTLE = 10.0


@dataclass
class Figure:
    """One line of the table; the values of stock and roost are paired, one pair a round."""

    table: str
    name: str
    unit: str
    goal: float | None = None
    """Of roost / stock; `more` says whether as least or as most."""
    more: bool = False
    """More is better."""
    bound: str = ""
    """Follows "bounded by", for the case that the goal is missed."""
    stock: list[float] = field(default_factory=list)
    roost: list[float] = field(default_factory=list)

    @property
    def ratios(self) -> list[float]:
        return [ours / theirs for ours, theirs in zip(self.roost, self.stock, strict=True)]

    @property
    def reached(self) -> bool | None:
        """Whether the median ratio meets the goal; None without one."""
        if self.goal is None:
            return None
        middle = statistics.median(self.ratios)
        return middle >= self.goal if self.more else middle <= self.goal


START = "start"
IDLE = "idle"
JOBS = "jobs"
MEMORY = "memory"
TABLES = (START, IDLE, MEMORY, JOBS)

_PYTHON = (
    "supervisord, with the log relay in it (about 9 MiB of Python), beside daemons "
    "that hold 7 MiB together"
)


def figures() -> dict[str, Figure]:
    """All lines, still empty, by a short key."""
    return {
        "first": Figure(
            START, f"start of master, submit, {EXECUTORS} executors → first job done", "s", 0.5,
            bound="the starter's 1 s of file transfer, two timers of 1 s in the startd, and the "
            "start of four containers",
        ),
        "latency": Figure(
            IDLE, "submit → done of /bin/true", "s", 0.25,
            bound="1.0 s of it is the starter's sleep after file transfer, for which HTCondor has "
            "no setting",
        ),
        "latency-bare": Figure(IDLE, "the same without outputs to look for", "s"),
        "rate": Figure(
            JOBS, f"short jobs, {EXECUTORS} executors with {SLOTS} slots each", "jobs/s", 2,
            more=True, bound="each job holds its slot for that 1 s sleep, and 2 cores are shared "
            "by everything",
        ),
        "cpu": Figure(JOBS, "CPU of a short job", "ms"),
        "rate-bare": Figure(JOBS, "short jobs without outputs to look for", "jobs/s", more=True),
        "cpu-bare": Figure(JOBS, "CPU of a short job without outputs to look for", "ms"),
        **{
            role: Figure(MEMORY, f"{role}: own memory", "MiB")
            for role in ("master", "submit", "execute")
        },
        **{
            f"{role}-pss": Figure(MEMORY, f"{role}: proportional set size", "MiB")
            for role in ("master", "submit", "execute")
        },
        "slope": Figure(
            MEMORY, "each further executor, with the engine's own process for it", "MiB", 1.6,
            bound=_PYTHON,
        ),
    }  # fmt: skip


Say = Callable[[str], None]


@dataclass
class Bench:
    """One run."""

    engine: Engine
    say: Say
    rows: dict[str, Figure] = field(default_factory=figures)

    def note(self, key: str, ours: bool, value: float) -> None:
        """A measured value."""
        row = self.rows[key]
        (row.roost if ours else row.stock).append(value)
        self.say(f"{'roost' if ours else 'stock'}: {row.name}: {value:.2f} {row.unit}")

    def start(self) -> None:
        """Nothing runs → the first job is done."""
        for ours in (False, True):
            with ExitStack() as stack:
                begun = time.monotonic()
                if ours:
                    stack.enter_context(pools.roosted(self.engine, EXECUTORS))
                else:
                    side = stack.enter_context(pools.by_hand(self.engine, EXECUTORS, 0))
                    side.jobs(1, pools.SHORT + pools.NO_OUTPUTS)
                self.note("first", ours, time.monotonic() - begun)

    def idle(self) -> None:
        """Nothing to do → one job, on both sides in turns, at times that fit no interval."""
        with pools.minicondor(self.engine) as mini, pools.roosted(self.engine, EXECUTORS) as pool:
            for side in (mini, pool):
                side.jobs(1)
            for pause in (3.1, 4.7, 6.3):
                for key, what in (
                    ("latency", pools.SHORT),
                    ("latency-bare", pools.SHORT + pools.NO_OUTPUTS),
                ):
                    for side, ours in ((mini, False), (pool, True)):
                        time.sleep(pause)
                        self.note(key, ours, side.jobs(1, what))

    def memory(self) -> None:
        """Nothing to do, nothing done yet but one job."""
        for ours in (False, True):
            with ExitStack() as stack:
                if ours:
                    side = stack.enter_context(pools.roosted(self.engine, EXECUTORS))
                else:
                    side = stack.enter_context(pools.by_hand(self.engine, EXECUTORS, FURTHER))
                    side.jobs(1)
                time.sleep(SETTLE)
                for role, nodes in side.roles.items():
                    held = memory(self.engine, nodes[0])
                    self.note(role, ours, held.own)
                    self.note(f"{role}-pss", ours, held.pss)
                self._slope(side, ours)

    def _slope(self, side: Side, ours: bool) -> None:
        base = side.roles["execute"][0].removesuffix("1")
        new = [f"{base}{i}" for i in range(EXECUTORS + 1, EXECUTORS + FURTHER + 1)]
        before = self._held(side.nodes)
        side.grow(FURTHER)
        time.sleep(SETTLE)
        self.note("slope", ours, (self._held([*side.nodes, *new]) - before) / FURTHER)

    def _held(self, nodes: Sequence[str]) -> float:
        return sum(held.own + held.keeper for held in (memory(self.engine, n) for n in nodes))

    def jobs(self, count: int, roost_first: bool) -> None:
        """Many short jobs at once, on both sides in turns; the other one stands idle meanwhile."""
        with (
            pools.minicondor(self.engine) as mini,
            pools.roosted(self.engine, EXECUTORS, SLOTS) as pool,
        ):
            sides: Sequence[tuple[Side, bool]] = ((mini, False), (pool, True))
            for side, _ours in sides:
                side.jobs(1)
            for suffix, what in (("", pools.SHORT), ("-bare", pools.SHORT + pools.NO_OUTPUTS)):
                for side, ours in reversed(sides) if roost_first else sides:
                    used = cpu_ms(self.engine, side.nodes)
                    seconds = side.jobs(count, what)
                    self.note(f"rate{suffix}", ours, count / seconds)
                    self.note(
                        f"cpu{suffix}", ours, (cpu_ms(self.engine, side.nodes) - used) / count
                    )
