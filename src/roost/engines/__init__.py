"""Engines: where a pool's containers live."""

from __future__ import annotations

import os
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Final

from roost.engines.base import Engine
from roost.engines.hosts import HostsEngine
from roost.engines.kubernetes import KubernetesEngine
from roost.engines.oci import DOCKER, PODMAN, At, Dialect, OciEngine
from roost.errors import BadInput, EngineUnavailable
from roost.spec import Host, Marathon, PoolSpec
from roost.specfile import MARATHON_VARIABLE

#: In the order in which they are tried.
DIALECTS: Final[tuple[Dialect, ...]] = (DOCKER, PODMAN)

MARATHON: Final = "marathon"


def detect() -> Engine:
    """The first engine that answers: Docker, then Podman.

    Raises EngineUnavailable that says of each why not.
    """
    reasons = []
    for dialect in DIALECTS:
        engine = OciEngine(dialect)
        try:
            engine.info()
        except EngineUnavailable as error:
            reasons.append(error)
        else:
            return engine
    raise EngineUnavailable(
        "no container engine answers: " + ", ".join(reason.message for reason in reasons),
        advice=" or ".join(reason.advice for reason in reasons if reason.advice),
    )


def of_hosts(hosts: Sequence[Host]) -> Engine:
    """The Dockers of several hosts as one engine."""
    ats = [At(host.name, host.docker or "", host.tls or "", host.address or "") for host in hosts]
    return HostsEngine({at.name: OciEngine(DOCKER, at) for at in ats})


def by_name(name: str, spec: PoolSpec | None = None) -> Engine:
    """The engine of that name, whether it answers or not, as the pool wants it.

    Raises BadInput for an unknown one.
    """
    for dialect in DIALECTS:
        if dialect.program == name:
            return OciEngine(dialect)
    if name == KubernetesEngine.name:
        return KubernetesEngine(spec.kubernetes if spec else None)
    if name == MARATHON:
        from roost.engines.marathon.engine import MarathonEngine

        settings = spec.marathon if spec else Marathon()
        url = settings.url or os.environ.get(MARATHON_VARIABLE) or None
        dockers = [OciEngine(DOCKER, At(agent, agent)) for agent in settings.agents]
        chosen = settings.model_copy(update={"url": url})
        return MarathonEngine(chosen, dockers or [OciEngine(DOCKER)])
    names = [*(dialect.program for dialect in DIALECTS), KubernetesEngine.name, MARATHON]
    close = get_close_matches(name, names, 1)
    raise BadInput(
        f"the engine {name!r} is unknown",
        advice=f"did you mean {close[0]!r}?" if close else f"choose from {', '.join(names)}",
    )
