"""Plan → compose.yaml, for whoever runs pools with Compose. Renders only; runs nothing.

The master and the access point get the files that the plan delivers. Executors are made by number
(`--scale`), so no certificate can be waiting for them: each makes its own key and is admitted with
a join token that they share.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import groupby
from pathlib import PurePosixPath
from typing import Any, Final

import yaml

from roost.confine import FUSE, SECCOMP, as_root
from roost.engines.base import RESTART, STOP_SECONDS
from roost.plan import Node, Plan, bound
from roost.security import Secret
from roost_node.vocab import (
    CA_CERT,
    DATA,
    EXTRA_CONFIG,
    NODE_CERT,
    READER_CERT,
    READER_KEY,
    STATE_DIR,
)

FILE: Final = "compose.yaml"
#: Beside it: what executors may ask of the kernel where jobs mount data.
SECCOMP_FILE: Final = "seccomp.json"
#: The join token's place, beside the file that is rendered.
JOIN_TOKEN: Final = "secrets/join-token"  # noqa: S105 - a path

_TOKEN_IN_NODE: Final = "/run/secrets/join-token"  # noqa: S105 - a path


class ComposeRenderer:
    """Renders `compose.yaml`; `secret_files` says what must lie beside it."""

    def render(self, plan: Plan) -> Mapping[str, str]:
        """`compose.yaml`, and the profile that it names where jobs mount data.

        The same plan gives the same text. Holds no secret.
        """
        body = yaml.safe_dump(_project(plan), sort_keys=False, allow_unicode=True, width=100)
        needed = any(node.confinement.mounts for node in plan.nodes)
        return {FILE: _header(plan) + body} | (
            {SECCOMP_FILE: SECCOMP.read_text()} if needed else {}
        )


def secret_files(plan: Plan) -> Mapping[str, Secret]:
    """What must lie beside `compose.yaml`, by relative path, in a directory of mode 0700.

    Compose mounts the files themselves, with their modes: see `mode_of`. The join token is not
    among them: the master makes one, as the file's first lines say.
    """
    return {
        _path(service, file): secret
        for service, nodes in _services(plan)
        for file, secret in _delivered(nodes[0]).items()
    }


def mode_of(path: str) -> int:
    """The mode of a secret file: every user of an access point reads the reader's identity."""
    name = PurePosixPath(path).name
    return 0o644 if name in (CA_CERT, NODE_CERT, READER_CERT, READER_KEY) else 0o600


def _header(plan: Plan) -> str:
    single = [service for service, nodes in _services(plan) if not _scales(nodes[0])]
    lines = [
        f"HTCondor pool {plan.pool}, rendered by `roost render compose`.",
        "",
        f"docker compose up -d --wait {' '.join(single)}",
    ]
    groups = [(service, len(nodes)) for service, nodes in _services(plan) if _scales(nodes[0])]
    if groups:
        lines += [
            # Compose mounts it with its mode, and jobs run where it is mounted.
            "(umask 077; docker compose exec -T master roost-node join-token execute "
            f"--uses {sum(count for _, count in groups)} > {JOIN_TOKEN})",
            "docker compose up -d",
            "",
            "Executors that come later or are made anew need a token that is still good:",
            f"repeat the second line before `docker compose up -d --scale {groups[0][0]}=N`.",
        ]
    return "".join(f"# {line}".rstrip() + "\n" for line in lines) + "\n"


def _project(plan: Plan) -> dict[str, Any]:
    services = _services(plan)
    volumes = {
        volume.name.removeprefix(f"{plan.pool}-"): {
            "name": volume.name, "labels": dict(volume.labels)
        }
        for volume in plan.volumes
    }  # fmt: skip
    secrets = {
        _secret(service, file): {"file": f"./{_path(service, file)}"}
        for service, nodes in services
        for file in _delivered(nodes[0])
    }
    if any(_scales(nodes[0]) for _, nodes in services):
        secrets["join-token"] = {"file": f"./{JOIN_TOKEN}"}
    owned = {network.name: network for network in plan.networks}
    name = plan.nodes[0].network
    network = (
        {"name": name, "labels": dict(owned[name].labels)}
        if name in owned
        else {"name": name, "external": True}
    )
    return {
        "name": plan.pool,
        "services": {service: _service(plan, service, nodes) for service, nodes in services},
        "networks": {"pool": network},
        "volumes": volumes,
        **({"secrets": secrets} if secrets else {}),
    }


def _service(plan: Plan, service: str, nodes: list[Node]) -> dict[str, Any]:
    node = nodes[0]
    token = ("--join-token", _TOKEN_IN_NODE) if _scales(node) else ()
    secrets: list[dict[str, str]] = [
        {"source": _secret(service, file), "target": f"{STATE_DIR}/{file}"}
        for file in _delivered(node)
    ]
    if token:
        secrets.append({"source": "join-token", "target": _TOKEN_IN_NODE})
    confined = as_root(node.confinement)
    volumes = [
        *(_volume(plan, mount.volume, mount.path) for mount in node.mounts),
        *(bound(at) for at in node.binds),
        *confined.volumes,
    ]
    limits = {
        **({"cpus": f"{node.cpus:g}"} if node.cpus else {}),
        **({"memory": _size(node.memory)} if node.memory else {}),
        **({"pids": confined.pids} if confined.pids else {}),
    }
    deploy = {
        **({"replicas": len(nodes)} if token else {}),
        **({"resources": {"limits": limits}} if limits else {}),
    }
    return {
        "image": node.image,
        # The image's own check, less often.
        **({"healthcheck": {"interval": f"{node.health_every}s"}} if node.health_every else {}),
        # Compose puts the values of variables in place of $NAME.
        "command": [word.replace("$", "$$") for word in (*node.args, *token)],
        # One of a kind: its name is its address and stands in its certificate.
        **({} if token else {"container_name": node.name, "hostname": node.name}),
        "networks": ["pool"],
        **({"depends_on": ["master"]} if node.role != "master" else {}),
        "labels": dict(node.labels),
        **({"deploy": deploy} if deploy else {}),
        "cap_drop": ["ALL"],
        **({"cap_add": list(confined.capabilities)} if confined.capabilities else {}),
        "security_opt": [
            "no-new-privileges:true",
            *([f"seccomp=./{SECCOMP_FILE}"] if confined.mounts else []),
        ],
        **({"devices": [FUSE]} if confined.mounts else {}),
        **({"read_only": True} if confined.read_only else {}),
        **({"tmpfs": [f"{place}:mode=0755" for place in confined.tmpfs]} if confined.tmpfs else {}),
        **({"volumes": volumes} if volumes else {}),
        **({"secrets": secrets} if secrets else {}),
        "restart": RESTART,
        "stop_grace_period": f"{STOP_SECONDS}s",
    }  # fmt: skip


def _services(plan: Plan) -> list[tuple[str, list[Node]]]:
    """Each service and its nodes: the roles that are one of a kind, and the groups of executors."""

    def service(node: Node) -> str:
        return node.group if _scales(node) else node.name.removeprefix(f"{plan.pool}-")

    return [(name, list(nodes)) for name, nodes in groupby(plan.nodes, service)]


def _scales(node: Node) -> bool:
    return node.role == "execute"


def _delivered(node: Node) -> Mapping[str, Secret]:
    """The node's files; of an executor only what fits any number of them."""
    return {
        name: secret
        for name, secret in sorted(node.files.items())
        if not _scales(node) or name in (EXTRA_CONFIG, DATA)
    }


def _secret(service: str, file: str) -> str:
    return f"{service}-{file}"


def _path(service: str, file: str) -> str:
    return f"secrets/{service}/{file}"


def _volume(plan: Plan, volume: str, path: str) -> str:
    return f"{volume.removeprefix(f'{plan.pool}-')}:{path}"


def _size(size: int) -> str:
    """Bytes, in Compose's words: the largest unit in which it is whole."""
    unit = next(unit for unit in ("g", "m", "k", "b") if size % _BYTES[unit] == 0)
    return f"{size // _BYTES[unit]}{unit}"


_BYTES: Final = {"g": 2**30, "m": 2**20, "k": 2**10, "b": 1}
