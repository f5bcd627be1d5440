"""How fast the master matches: at once in a small pool, calmer in a large one.

A negotiation cycle reads every slot's ad. With ten executors that is nothing, and each second of
waiting is felt; with a thousand it is the master's main work.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Pace:
    """Two of HTCondor's intervals, in seconds."""

    interval: int
    """NEGOTIATOR_INTERVAL: between two cycles that nobody asked for."""
    delay: int
    """NEGOTIATOR_CYCLE_DELAY: from one cycle's end to the next, however much it is asked for."""


#: Up to so many executors, this pace. Beyond: HTCondor's own defaults.
_PACES: Final = ((50, Pace(5, 0)), (250, Pace(15, 1)), (1000, Pace(30, 5)))
_STOCK: Final = Pace(60, 20)


def pace(executors: int) -> Pace:
    """The pace of a pool with so many executors."""
    return next((pace for most, pace in _PACES if executors <= most), _STOCK)


#: Seconds between two health checks of an executor, up to so many executors; beyond: 60. Each costs
#: the machine 25 ms for the question and as much again for the engine's way into the container.
_CHECKS: Final = ((20, None), (100, 30))


def health_every(executors: int) -> int | None:
    """How often executors of such a pool are asked how they are; None: as the image says."""
    return next((every for most, every in _CHECKS if executors <= most), 60)


def configuration(executors: int) -> str:
    """The pace as HTCondor configuration, with its reasons."""
    chosen = pace(executors)
    return f"""\
# Written by roost-node for a pool of {executors} executors; `roost-node pace N` writes it anew.
# An access point asks for a cycle at each submission. From the end of one cycle to the next it
# waits for this, in seconds; stock waits 20, most of what a job on an idle pool waits for.
NEGOTIATOR_CYCLE_DELAY = {chosen.delay}
NEGOTIATOR_MIN_INTERVAL = {chosen.delay}
# For jobs that wait until an executor appears: nobody asks for a cycle then. Stock: 60.
NEGOTIATOR_INTERVAL = {chosen.interval}
"""
