"""A Marathon to test with: the emulator of it, and a network that its tasks share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from node_bench import Node
from roost_bench import ask, fresh

from marathon_emulator.definitions import Generation
from marathon_emulator.emulator import Emulator, emulated
from marathon_emulator.rest import Server, serving

#: How much shorter the emulator's health checks and its patience with what fails are.
PACE = 0.1


@dataclass(frozen=True)
class Marathon:
    """The emulator, where it is served, and the network for its tasks."""

    emulator: Emulator
    server: Server
    network: str

    @property
    def url(self) -> str:
        return self.server.url

    def nodes(self, app: str) -> list[Node]:
        """The containers of an app's tasks that run, the oldest first."""
        return [Node(task["container"]) for task in self._tasks(app)]

    def tasks(self, app: str) -> list[str]:
        """Their ids."""
        return [task["id"] for task in self._tasks(app)]

    def _tasks(self, app: str) -> list[dict[str, Any]]:
        there = self.emulator.containers()
        return [
            {"id": id, "container": there[id]}
            for each in self.emulator.listed()
            if each["id"] == app
            for id in [task["id"] for task in each["tasks"] if task["state"] == "TASK_RUNNING"]
        ]

    def settled(self, seconds: float = 180) -> bool:
        """Whether every deployment comes to its end in time."""
        return self.emulator.until(lambda it: not it.running(), seconds)


@contextmanager
def marathon(generation: Generation = "1.5") -> Iterator[Marathon]:
    """One that leaves nothing behind."""
    network = fresh("marathon-net")
    ask("network", "create", network)
    try:
        with emulated(generation, pace=PACE) as emulator, serving(emulator) as server:
            yield Marathon(emulator, server, network)
    finally:
        ask("network", "rm", network)
