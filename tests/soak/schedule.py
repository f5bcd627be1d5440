"""A seed → which jobs are submitted and which faults strike, when, where and for how long. Pure."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Final, TypeVar

T = TypeVar("T")

#: Seconds before the first fault, so that there are jobs for it to hit.
LEAD: Final = 12.0
#: Seconds between the end of a fault and the next one.
GAP: Final = (8.0, 18.0)
#: How many faults of a hundred come with another one on another node.
DOUBLE: Final = 20
#: Seconds between two submissions, on average. The pool's slots are busy for about half of the
#: time then, so that a job that waits tells of an outage.
PACE: Final = 4.0
USERS: Final = ("alice", "bob", "carol")
#: Whoever is hit by a fault of the pool as a whole.
WHOLE_POOL: Final = "pool"


@dataclass(frozen=True)
class Kind:
    """A fault as the schedule sees it."""

    name: str
    targets: Mapping[str, tuple[str, ...]]
    """Role (or WHOLE_POOL) → the daemons in it that can be hit; an empty name is the whole node."""
    seconds: tuple[int, int] = (0, 0)
    """The shortest and the longest that it lasts."""


@dataclass(frozen=True)
class Strike:
    """One fault that is to strike."""

    number: int
    at: float
    """Seconds after the start."""
    kind: str
    node: str
    """What follows the pool's name in the node's; WHOLE_POOL for all."""
    daemon: str = ""
    seconds: float = 0.0

    @property
    def victim(self) -> str:
        return f"{self.node}/{self.daemon}" if self.daemon else self.node

    def __str__(self) -> str:
        lasting = f" for {self.seconds:g} s" if self.seconds else ""
        return f"{self.kind} {self.victim}{lasting}"


@dataclass(frozen=True)
class Job:
    """One job that is to be submitted."""

    id: str
    user: str
    seconds: int
    exit_code: int
    input: str = ""
    """What its input file holds; none if empty."""


@dataclass(frozen=True)
class Batch:
    """Jobs that one submit file describes."""

    name: str
    at: float
    user: str
    kind: str
    jobs: tuple[Job, ...]


@dataclass(frozen=True)
class Schedule:
    """All that happens in a soak, before it happens."""

    seed: int
    strikes: tuple[Strike, ...]
    batches: tuple[Batch, ...]
    seconds: float = field(default=0.0)

    @property
    def jobs(self) -> tuple[Job, ...]:
        return tuple(job for batch in self.batches for job in batch.jobs)


def schedule(
    seed: int, minutes: float, kinds: Sequence[Kind], nodes: Mapping[str, Sequence[str]]
) -> Schedule:
    """What happens in `minutes`; `nodes` are the pool's, by role. The same for the same seed."""
    seconds = minutes * 60
    return Schedule(
        seed, tuple(_strikes(seed, seconds, kinds, nodes)), tuple(_batches(seed, seconds)), seconds
    )


def _strikes(
    seed: int, seconds: float, kinds: Sequence[Kind], nodes: Mapping[str, Sequence[str]]
) -> Iterator[Strike]:
    draw = Random(f"{seed}/faults")
    cards = [
        (kind, role, daemon)
        for kind in kinds
        for role, daemons in kind.targets.items()
        for daemon in daemons
    ]
    deck = _dealt(draw, cards)
    numbers = itertools.count(1)
    at = LEAD
    while cards and at < seconds:
        struck: list[Strike] = []
        for offset in (0.0, *((draw.uniform(0, 3),) if draw.randrange(100) < DOUBLE else ())):
            kind, role, daemon = next(deck)
            node = WHOLE_POOL if role == WHOLE_POOL else draw.choice(list(nodes[role]))
            lasts = float(draw.randint(*kind.seconds))
            if node not in {other.node for other in struck}:
                struck.append(
                    Strike(next(numbers), round(at + offset, 1), kind.name, node, daemon, lasts)
                )
        yield from struck
        at = max(each.at + each.seconds for each in struck) + draw.uniform(*GAP)


def _dealt(draw: Random, cards: Sequence[T]) -> Iterator[T]:
    """The cards shuffled, again and again: each comes once before any comes twice."""
    while True:
        yield from draw.sample(cards, len(cards))


def _batches(seed: int, seconds: float) -> Iterator[Batch]:
    draw = Random(f"{seed}/jobs")
    at = 0.0
    for number in itertools.count(1):
        if at >= seconds:
            return
        name = f"b{number:04}"
        user = draw.choice(USERS)
        kind = draw.choices(
            ("quick", "array", "failing", "input", "long"), weights=(30, 20, 12, 15, 23)
        )[0]
        count = draw.randint(3, 8) if kind == "array" else 1
        jobs = tuple(_job(draw, f"{name}-{index}", user, kind) for index in range(count))
        yield Batch(name, round(at, 1), user, kind, jobs)
        at += draw.uniform(0.5 * PACE, 1.5 * PACE)


def _job(draw: Random, name: str, user: str, kind: str) -> Job:
    seconds = {
        "quick": draw.randint(0, 2), "array": draw.randint(1, 10), "failing": draw.randint(0, 5),
        "input": draw.randint(0, 4), "long": draw.randint(20, 60),
    }[kind]  # fmt: skip
    code = draw.randint(1, 120) if kind == "failing" else 0  # 137: killed
    text = "".join(f"input {draw.getrandbits(64):016x}\n" for _ in range(20))
    return Job(name, user, seconds, code, text if kind == "input" else "")
