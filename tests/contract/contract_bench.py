"""What a contract test has in its hands."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from roost.engines.base import Engine


@dataclass(frozen=True)
class Bench:
    """An engine, an image that it has, and what may befall one of its nodes behind its back."""

    engine: Engine
    image: str
    stop: Callable[[str], None]
    pause: Callable[[str], None]
    cut: Callable[[str], None]
    """Takes it off the only network that it is on, which has the pool's name."""
