"""The containers on Mesos' agents, by the agents' own Docker.

Marathon starts and ends tasks, and that is all: no command runs in one through its API, and no log
is read. Both go through the Docker that runs the task.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

from roost.engines.base import Engine, EngineInfo
from roost.errors import EngineUnavailable
from roost.plan import Ref


class Docker(Engine, Protocol):
    """An agent's Docker, or any that shows what others made."""

    def labelled(self, label: str) -> Sequence[Mapping[str, Any]]:
        """What runs with a label, whoever made it: id, host name and environment."""
        ...


@dataclass(frozen=True)
class Container:
    """A task's container, and the Docker that runs it."""

    id: str
    hostname: str
    docker: Docker

    @property
    def ref(self) -> Ref:
        """What an engine takes for it: its id is as good as a name."""
        return Ref("node", self.id)


class Agents:
    """The agents' Dockers."""

    def __init__(self, dockers: Sequence[Docker]) -> None:
        self._dockers = dockers

    def info(self) -> EngineInfo:
        """All of them as one. Raises EngineUnavailable if one does not answer."""
        try:
            found = [docker.info() for docker in self._dockers]
        except EngineUnavailable as error:
            raise EngineUnavailable(
                f"Marathon answers, but not the Docker of its agents: {error.message}",
                advice="roost runs commands in nodes through it: name each agent's in "
                "`marathon: {agents: [ssh://AGENT, …]}`",
            ) from None
        cpus, memory = sum(each.cpus for each in found), sum(each.memory for each in found)
        first = found[0]
        return EngineInfo(
            "marathon", first.version, cpus, memory, first.cgroup, first.rootless, first.log_driver
        )

    def containers(self, label: str) -> Mapping[str, Container]:
        """Task → its container, of those with the label. Raises EngineError."""
        with ThreadPoolExecutor(8) as threads:
            listed = threads.map(lambda docker: docker.labelled(label), self._dockers)
        return {
            task: Container(each["id"], each["hostname"], docker)
            for docker, found in zip(self._dockers, listed, strict=True)
            for each in found
            if (task := _variables(each).get("MESOS_TASK_ID"))
        }


def _variables(data: Mapping[str, Any]) -> dict[str, str]:
    return dict(entry.partition("=")[::2] for entry in data["env"] or ())
