"""What a definition means to a generation of Marathon: refused, completed, shown. Pure."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

from marathon_emulator import schemas

App = dict[str, Any]
Generation = Literal["1.1", "1.4", "1.5"]

#: What `/v2/info` says, and the published schema that counts: there is none of 1.4.
VERSIONS: Final[Mapping[Generation, str]] = {"1.1": "1.1.2", "1.4": "1.4.9", "1.5": "1.5.6"}
_SCHEMA: Final[Mapping[Generation, str]] = {"1.1": "1.1.2", "1.4": "1.3.0", "1.5": "1.5.0"}

_ID: Final = re.compile(r"^(/?((\.\.)|(\.)|([a-z0-9]|[a-z0-9][a-z0-9-]*[a-z0-9])))+$")
#: Of every app, unless it says otherwise.
_DEFAULTS: Final[Mapping[str, Any]] = {
    "cpus": 1.0, "mem": 128.0, "disk": 0.0, "instances": 1, "backoffSeconds": 1,
    "backoffFactor": 1.15, "maxLaunchDelaySeconds": 3600, "constraints": [], "labels": {},
    "env": {}, "dependencies": [], "healthChecks": [],
    "upgradeStrategy": {"minimumHealthCapacity": 1.0, "maximumOverCapacity": 1.0},
}  # fmt: skip
_CHECK: Final[Mapping[str, Any]] = {
    "gracePeriodSeconds": 300, "intervalSeconds": 60, "timeoutSeconds": 20,
    "maxConsecutiveFailures": 3,
}  # fmt: skip
_ARGUMENTS: Final = {
    "UNIQUE": (0, 0), "CLUSTER": (0, 1), "GROUP_BY": (0, 1), "LIKE": (1, 1), "UNLIKE": (1, 1),
    "MAX_PER": (1, 1),
}  # fmt: skip


class Invalid(Exception):
    """A definition that is not taken; `details` are paths and what is wrong there."""

    def __init__(self, details: Sequence[tuple[str, str]]) -> None:
        super().__init__(details)
        self.details = details


def accepted(app: App, generation: Generation) -> App:
    """The definition, complete, as this generation keeps it. Raises Invalid."""
    found = copy.deepcopy(app)
    if schemas.SCHEMAS is not None and (broken := schemas.wrong(found, _SCHEMA[generation])):
        raise Invalid(broken)
    if broken := list(_broken_rules(found, generation)):
        raise Invalid(broken)
    found["id"] = "/" + found["id"].strip("/")
    found = {**copy.deepcopy(dict(_DEFAULTS)), **found}
    found["healthChecks"] = [{**_CHECK, **check} for check in found["healthChecks"]]
    return _in_new_words(found) if generation == "1.5" else found


def _broken_rules(app: App, generation: Generation) -> list[tuple[str, str]]:
    """What Marathon's own validation refuses and its schemas let pass."""
    found = []
    container = app.get("container") or {}
    docker = container.get("docker") or {}
    discovers = bool(((app.get("ipAddress") or {}).get("discovery") or {}).get("ports"))
    mapped = container.get("type") == "DOCKER" and (
        generation == "1.5" or docker.get("network") in ("BRIDGE", "USER")
    )
    if not _ID.match(str(app.get("id", ""))):
        found.append(("/id", "must fully match regular expression"))
    if discovers and mapped:
        found.append(
            ("/ipAddress", "ipAddress/discovery is not allowed for Docker containers using BRIDGE "
             "or USER networks")
        )  # fmt: skip
    if generation == "1.5":
        for at, network in enumerate(_networks(app)):
            if network["mode"] == "container" and not network.get("name"):
                found.append((f"/networks({at})/name", "network name must be specified"))
    persistent = [each for each in container.get("volumes") or () if "persistent" in each]
    if generation != "1.5" and bool(persistent) != ("residency" in app):
        found.append(("/", "AppDefinition must contain persistent volumes and define residency"))
    strategy = app.get("upgradeStrategy") or {}
    if persistent and strategy.get("maximumOverCapacity", 1.0) != 0:
        found.append(("/upgradeStrategy/maximumOverCapacity", "must be 0 for resident tasks"))
    if any("/" in each["containerPath"] for each in persistent):
        found.append(("/container/volumes", 'path must not contain "/"'))
    for at, (_, operator, *value) in enumerate(app.get("constraints") or ()):
        least, most = _ARGUMENTS.get(operator, (1, 0))
        if not least <= len(value) <= most:
            found.append((f"/constraints({at})", f"Invalid constraint {operator}"))
    if "cmd" in app and "args" in app:
        found.append(("/", "AppDefinition must either contain one of 'cmd' or 'args'"))
    return found


def _networks(app: App) -> list[dict[str, Any]]:
    """The app's networks in the words of 1.5, whatever it says them in."""
    if "networks" in app:
        return list(app["networks"])
    docker = (app.get("container") or {}).get("docker") or {}
    name = (app.get("ipAddress") or {}).get("networkName")
    match docker.get("network"):
        case "BRIDGE":
            return [{"mode": "container/bridge"}]
        case "USER":
            return [{"mode": "container", **({"name": name} if name else {})}]
        case None if "ipAddress" in app:
            return [{"mode": "container", **({"name": name} if name else {})}]
        case _:
            return [{"mode": "host"}]


def _in_new_words(app: App) -> App:
    """As 1.5 keeps it: what older ones said is taken, and never said again."""
    found = {**app, "networks": _networks(app)}
    found.pop("ipAddress", None)
    if "container" in found:
        container = dict(found["container"])
        if "docker" in container:
            docker = dict(container["docker"])
            docker.pop("network", None)
            if mappings := docker.pop("portMappings", None):
                container.setdefault("portMappings", mappings)
            container["docker"] = docker
        found["container"] = container
    return found


def network(app: App) -> str:
    """What `docker run --net` gets: a network's name, `bridge`, `host`; empty for a parameter's."""
    if "networks" not in app and "network" not in app["container"]["docker"]:
        return ""
    (first, *_) = _networks(app)
    return str({"container": first.get("name"), "container/bridge": "bridge"}.get(
        first["mode"], "host"
    ))  # fmt: skip


def fits(constraints: Sequence[Sequence[str]], agent: Mapping[str, str],
         others: Sequence[Mapping[str, str]], agents: int) -> bool:  # fmt: skip
    """Whether an app's next task may run on `agent`, where its `others` run on theirs."""

    def allowed(field: str, operator: str, value: str = "") -> bool:
        here = agent.get(field)
        taken = [other.get(field) for other in others]
        if here is None:
            return operator == "UNLIKE"
        match operator:
            case "UNIQUE":
                return here not in taken
            case "CLUSTER":
                return here == value if value else not taken or here == taken[0]
            case "LIKE":
                return re.fullmatch(value, here) is not None
            case "UNLIKE":
                return re.fullmatch(value, here) is None
            case "MAX_PER":
                return taken.count(here) < int(value)
            case _:  # GROUP_BY
                groups = {each: taken.count(each) for each in taken}
                known = int(value or agents)
                least = min(groups.values()) if len(groups) >= known else 0
                return groups.get(here, 0) <= least

    return all(allowed(*constraint) for constraint in constraints)
