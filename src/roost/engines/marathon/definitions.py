"""Plan → Marathon's app definitions, in the words of three generations of it. Pure.

Marathon has no safe place for a secret, so nothing is delivered: the master makes its own authority
and every other node asks to be admitted. What belongs to one node for good, the queue above all, is
on persistent volumes. The access point and the master are one of a kind and have their names;
executors are made by number (`instances`), each under the name that its engine gives it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import groupby
from typing import Any, Final

from roost.confine import as_root
from roost.engines.base import STOP_SECONDS
from roost.errors import BadInput
from roost.plan import Node, Plan, node_name
from roost.spec import Marathon, MarathonHealth
from roost_node.vocab import (
    ADMIT_PORT,
    CONDOR_PORT,
    DATA,
    EXTRA_CONFIG,
    LABEL_POOL,
    STATE_DIR,
)

#: Where a node answers `/health`, if it is asked over HTTP.
HEALTH_PORT: Final = 5000
#: On each container, for whoever looks for an app's on an agent; its value is the app's id.
LABEL_APP: Final = "roost.app"
#: Size of the volume with a node's identity, in MiB.
_STATE_MIB: Final = 64
#: CPUs that are reserved where the pool file names none: Mesos wants a number.
_CPUS: Final = 1.0

#: `roost-node health` takes 8 s at most. A node that waits to be admitted, or for its master, is
#: not well and must not be killed for that: 0 shows its health and does nothing about it.
_CHECK: Final = {
    "gracePeriodSeconds": 300,
    "intervalSeconds": 10,
    "timeoutSeconds": 10,
    "maxConsecutiveFailures": 0,
}
_PROTOCOL: Final[Mapping[MarathonHealth, str]] = {"http": "HTTP", "mesos-http": "MESOS_HTTP"}


class MarathonRenderer:
    """Renders one file for each role and group of executors: `master.json`, `execute.json`."""

    def __init__(self, settings: Marathon) -> None:
        self._settings = settings

    def render(self, plan: Plan) -> Mapping[str, str]:
        """File name → an app definition; the same plan gives the same text. Holds no secret."""
        return {
            f"{group}.json": json.dumps(app, indent=2) + "\n"
            for group, app in apps(plan, self._settings).items()
        }


def apps(plan: Plan, settings: Marathon) -> dict[str, dict[str, Any]]:
    """Each role's and group's app definition. Raises BadInput for what Marathon cannot have."""
    check(plan, settings)
    found = {}
    for group, members in groupby(plan.nodes, lambda node: node.group):
        nodes = list(members)
        found[group] = app(plan.pool, nodes[0], settings, len(nodes))
    return found


def app_id(node: Node) -> str:
    """The app whose task is this node: its group's, or its own where it is one of a kind."""
    if node.role != "execute":
        return f"/{node.name}"
    return f"/{node.labels[LABEL_POOL]}-{node.group}"


def check(plan: Plan, settings: Marathon) -> None:
    """Raises BadInput, with what to do, for what cannot be on Marathon."""
    masters = [node for node in plan.nodes if node.role == "master"]
    if plan.networks:
        raise BadInput(
            "Marathon makes no networks, and the pool names none",
            advice="name one that its agents know, such as Calico's, with `network: {name: …}`",
        )
    if len(masters) > 1:
        raise BadInput(
            "two masters know each other by names that Marathon does not give them",
            advice="leave out `master: {count: 2}`: Marathon starts a master that died again",
        )
    delivered = {file for node in plan.nodes for file in node.files}
    if DATA in delivered:
        raise BadInput(
            "Marathon gives containers neither /dev/fuse nor a seccomp profile, without which jobs "
            "mount no `data:`",
            advice="leave it out of this pool file",
        )
    if delivered:
        what = "`config:`" if EXTRA_CONFIG in delivered else ", ".join(sorted(delivered))
        raise BadInput(
            f"{what} may hold secrets, and everybody who may look at Marathon sees an app whole",
            advice="put the configuration into an image of your own, and name that with "
            "`htcondor: {image: …}`",
        )
    if settings.version == "1.1":
        if settings.health != "command":
            raise BadInput(
                f"with the health check {settings.health!r} Marathon 1.1 loses a node's address",
                advice="leave it at `command`, or use version 1.4 or 1.5+",
            )
        if any("MAX_PER" in rule for rules in settings.constraints.values() for rule in rules):
            raise BadInput(
                "Marathon 1.1 knows no constraint MAX_PER",
                advice="use GROUP_BY, or version 1.4 or 1.5+",
            )


def app(pool: str, node: Node, settings: Marathon, instances: int) -> dict[str, Any]:
    """The app that runs `instances` nodes like `node`; what is one of a kind has its own name."""
    confined = as_root(node.confinement)
    volumes = _volumes(pool, node, settings)
    mounted = {volume["containerPath"] for volume in volumes}
    old = settings.version == "1.1"
    parameters = [
        ("label", f"{LABEL_APP}={app_id(node)}"),
        *([("net", node.network)] if old else []),
        *([("hostname", node.name)] if node.role != "execute" else []),
        ("cap-drop", "ALL"),
        *(("cap-add", capability) for capability in confined.capabilities),
        ("security-opt", "no-new-privileges"),
        *([("read-only", "true")] if confined.read_only else []),
        *(("tmpfs", f"{place}:mode=0755") for place in confined.tmpfs),
        *(("volume", place) for place in confined.volumes if place not in mounted),
        *([("pids-limit", str(confined.pids))] if confined.pids else []),
    ]
    docker: dict[str, Any] = {
        "image": node.image,
        **(
            {"network": "USER", "portMappings": _mappings(node)}
            if settings.version == "1.4"
            else {}
        ),
        "parameters": [{"key": key, "value": value} for key, value in parameters],
    }
    constraints = settings.constraints.get(node.group, ())
    return {
        "id": app_id(node),
        "args": _args(pool, node, settings),
        "cpus": node.cpus or _CPUS,
        "mem": (node.memory or 0) // 2**20,
        "instances": instances,
        **({"constraints": [list(rule) for rule in constraints]} if constraints else {}),
        "container": {
            "type": "DOCKER",
            "docker": docker,
            **({"portMappings": _mappings(node)} if settings.version == "1.5+" else {}),
            **({"volumes": volumes} if volumes else {}),
        },
        **_network(node, settings),
        "healthChecks": [_health(settings.health)],
        # It holds what nobody else has: the old one ends before the new one begins, and waits for
        # its own machine.
        **({"upgradeStrategy": {"minimumHealthCapacity": 0, "maximumOverCapacity": 0},
            "residency": {"taskLostBehavior": "WAIT_FOREVER"}} if volumes else {}),
        **({} if old else {"taskKillGracePeriodSeconds": STOP_SECONDS}),
        "labels": dict(node.labels),
    }  # fmt: skip


def _args(pool: str, node: Node, settings: Marathon) -> list[str]:
    master = node_name(pool, "master")
    found = [f"{master}.{settings.domain}" if word == master else word for word in node.args]
    if node.role == "master":
        found += ["--pool", pool]
    if settings.health != "command":
        found += ["--health-port", str(HEALTH_PORT)]
    return found


def _network(node: Node, settings: Marathon) -> dict[str, Any]:
    """How the node gets an address of its own on the pool's network."""
    match settings.version:
        case "1.5+":
            return {"networks": [{"mode": "container", "name": node.network}]}
        case "1.4":  # with USER, `discovery` is refused: the ports are mappings
            return {"ipAddress": {"networkName": node.network}}
        case _:
            ports = [
                {"number": port, "name": name, "protocol": "tcp"} for name, port in _ports(node)
            ]
            return {"ipAddress": {"discovery": {"ports": ports}}}


def _mappings(node: Node) -> list[dict[str, Any]]:
    return [{"containerPort": port, "name": name, "protocol": "tcp"} for name, port in _ports(node)]


def _ports(node: Node) -> list[tuple[str, int]]:
    return [("condor", CONDOR_PORT), *([("admit", ADMIT_PORT)] if node.role == "master" else [])]


def _volumes(pool: str, node: Node, settings: Marathon) -> list[dict[str, Any]]:
    """For each place two entries: Mesos makes a volume in the sandbox, Docker mounts it."""
    places = {
        mount.volume.removeprefix(f"{pool}-"): mount.path
        for mount in node.mounts
    }  # fmt: skip
    if node.mounts:
        places["state"] = STATE_DIR
    kind = {"type": "root"} if settings.version == "1.5+" else {}
    found: list[dict[str, Any]] = []
    for name, path in places.items():
        size = _STATE_MIB if path == STATE_DIR else settings.volume // 2**20
        found += [
            {"containerPath": name, "mode": "RW", "persistent": {**kind, "size": size}},
            {"containerPath": path, "hostPath": name, "mode": "RW"},
        ]
    return found


def _health(asked: MarathonHealth) -> dict[str, Any]:
    if asked == "command":
        return {"protocol": "COMMAND", "command": {"value": "roost-node health"}, **_CHECK}
    return {"protocol": _PROTOCOL[asked], "path": "/health", "port": HEALTH_PORT, **_CHECK}
