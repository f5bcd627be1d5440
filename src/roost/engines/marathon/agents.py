"""The containers on Mesos' agents, by the agents' own Docker.

Marathon starts and ends tasks, and that is all: no command runs in one through its API, and no log
is read. Both go through the Docker that runs the task.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from roost._run import run
from roost.engines.base import Engine
from roost.errors import CommandFailed, EngineUnavailable
from roost.plan import Ref

_TEMPLATE: Final = (
    '{"id":{{json .Id}},"hostname":{{json .Config.Hostname}},"env":{{json .Config.Env}}}'
)


@dataclass(frozen=True)
class Container:
    """A task's container."""

    id: str
    hostname: str

    @property
    def ref(self) -> Ref:
        """What an engine takes for it: its id is as good as a name."""
        return Ref("node", self.id)


class Agents:
    """What runs on the agents whose Docker this machine's `docker` command reaches."""

    def __init__(self, docker: Engine) -> None:
        self.docker = docker

    def containers(self, label: str) -> Mapping[str, Container]:
        """Task → its container, of those with the label. Raises EngineUnavailable."""
        listed = self._call("ps", "--no-trunc", "--quiet", "--filter", f"label={label}").split()
        if not listed:
            return {}
        # One may end between the two calls: the others are shown all the same.
        shown = run([self.docker.name, "container", "inspect", "--format", _TEMPLATE, *listed])
        found = [json.loads(line) for line in shown.text.splitlines() if line]
        return {
            task: Container(each["id"], each["hostname"])
            for each in found
            if (task := _variables(each).get("MESOS_TASK_ID"))
        }

    def _call(self, *argv: str) -> str:
        try:
            return run([self.docker.name, *argv], timeout=30).check().text
        except CommandFailed:
            self.docker.info()  # says why it does not answer
            raise EngineUnavailable(
                f"the agents' {self.docker.name} does not list its containers",
                advice="see whether it still runs",
            ) from None


def _variables(data: Mapping[str, Any]) -> dict[str, str]:
    return dict(entry.partition("=")[::2] for entry in data["env"] or ())
