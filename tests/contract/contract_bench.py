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
    pause: Callable[[str], None] | None
    """None where nothing is ever paused."""
    cut: Callable[[str], None] | None
    """Takes it off the only network that it is on, which has the pool's name. None if it cannot."""
    shown: Callable[[str], str]
    """All that the engine shows of it to whoever may look."""

    @property
    def is_kubernetes(self) -> bool:
        return self.engine.name == "kubernetes"
