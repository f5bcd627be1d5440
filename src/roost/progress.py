"""What a long piece of work tells whoever watches it, while it happens."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from roost.engines.base import Event


@dataclass(frozen=True)
class Stage:
    """A part of the work begins."""

    text: str


@dataclass(frozen=True)
class Detail:
    """Something that a part of the work says, for whoever watches closely."""

    text: str


Happened = Event | Stage | Detail
Progress = Callable[[Happened], None]


def quiet(_happened: Happened) -> None:
    """Progress that nobody watches."""
