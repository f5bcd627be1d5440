"""Plan → Kubernetes manifests: one set of objects for each item of the plan. Pure.

Every node is a StatefulSet of one replica. So it has a name of its own and is retired by it; its
pod comes back wherever there is room, and never beside the one that it replaces: an executor whose
jobs finish while its machine is emptied would otherwise meet another of its name in the collector.

Only the master is delivered anything secret. The other nodes make their keys themselves and are
admitted with a join token from a Secret; the access point keeps what it is given beside its queue,
an executor in its pod, whose successor asks again.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

import yaml

from roost.confine import MASTER_MEMORY, SUBMIT_MEMORY
from roost.engines.base import STOP_SECONDS
from roost.errors import BadInput
from roost.plan import VACATE, Network, Node, Plan, Volume
from roost.security import Secret
from roost.spec import Kubernetes, PolicyKind
from roost_node.vocab import (
    ADMIT_PORT,
    CONDOR_PORT,
    DATA,
    EXTRA_CONFIG,
    HOME_DIR,
    LABEL_POOL,
    LABEL_ROLE,
    NODE_CERT,
    SPOOL_DIR,
    STATE_DIR,
    Role,
    pool_domain,
)

Manifest = dict[str, Any]

#: The label of a node's pod, for its Service: a pod's own name has a number behind the node's.
LABEL_NODE: Final = "roost.node"
#: The container that is the node, and the one that makes its places ready.
CONTAINER: Final = "node"
PREPARE: Final = "prepare"

#: How long a join token is good in a Secret, and for how many pods: the most that a master gives.
#: A pod that Kubernetes makes anew months later needs one; nobody but the pool's pods reaches the
#: port where it is good for anything.
TOKEN_LIFETIME: Final = "366d"  # noqa: S105 - a time
TOKEN_USES: Final = 10000
#: The key of a Secret under which the token is.
TOKEN: Final = "token"  # noqa: S105 - a name

_TOKEN_DIR: Final = "/etc/roost/join"  # noqa: S105 - a path
_FILES_DIR: Final = "/etc/roost/files"

_API: Final[Mapping[PolicyKind, str]] = {
    "kubernetes": "networking.k8s.io/v1",
    "calico": "projectcalico.org/v3",
}
#: What a pod of one of a kind reserves; it may use what the pool file says. In bytes and CPUs.
_RESERVED_MEMORY: Final = 256 * 2**20
_RESERVED_CPUS: Final = 0.25
#: Room for a role's small places in memory; they count against the container's own.
_SMALL: Final = "64Mi"
#: For how long a node may wait for its master or to be admitted before its container is started
#: anew, which changes nothing: in seconds.
_PATIENCE: Final = 12 * 3600


def check(plan: Plan) -> None:
    """Raises BadInput, with what to do, for what cannot be on Kubernetes."""
    if not plan.networks:
        raise BadInput(
            "on Kubernetes all pods share the cluster's network, so the pool cannot name one",
            advice="leave out `network: {name: …}` and --network",
        )
    if sum(node.role == "master" for node in plan.nodes) > 1:
        raise BadInput(
            "a second master has nobody to admit it on Kubernetes, and is not needed there",
            advice="leave out `master: {count: 2}`: a master that died is started again",
        )
    if any(DATA in node.files for node in plan.nodes):
        raise BadInput(
            "a pod has no /dev/fuse and no seccomp profile of its own, without which jobs mount no "
            "`data:`",
            advice="leave it out of this pool file",
        )


# --- names --------------------------------------------------------------------------------------


def pod_name(node: str) -> str:
    """The only pod of a node."""
    return f"{node}-0"


def token_secret(pool: str, role: Role) -> str:
    """The Secret with the join token of a role."""
    return f"{pool}-join-{role}"


def files_secret(node: Node) -> str:
    """The Secret with the files that a node is delivered; the configuration is everybody's."""
    shared = set(node.files) <= {EXTRA_CONFIG}
    return f"{node.labels[LABEL_POOL]}-config" if shared else own_secret(node.name)


def own_secret(node: str) -> str:
    """The Secret with a node's own files."""
    return f"{node}-files"


# --- what belongs to the whole pool -------------------------------------------------------------


def namespace(name: str) -> Manifest:
    """A namespace, for pools that name one."""
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}


def of_network(
    network: Network, settings: Kubernetes, budgets: str = "policy/v1"
) -> list[Manifest]:
    """What the pool's pods share: names, who may reach them, how many may be taken at once.

    `budgets` is the version of PodDisruptionBudget that the server serves.
    """
    pool = network.labels[LABEL_POOL]
    owned = {LABEL_POOL: pool}
    return [
        service(network.name, network.labels, {LABEL_POOL: pool}, {"condor": CONDOR_PORT}),
        *policies(pool, settings.policy),
        budget(f"{pool}-services", budgets, owned, ["master", "submit"], 1),
        budget(f"{pool}-executors", budgets, owned, ["execute"], "25%"),
    ]


def service(
    name: str,
    labels: Mapping[str, str],
    selector: Mapping[str, str],
    ports: Mapping[str, int],
) -> Manifest:
    """Names for pods, without an address of its own.

    Also of pods that are not ready: the master gets ready by asking itself under this name.
    """
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "labels": dict(labels)},
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
            "selector": dict(selector),
            "ports": [
                {"name": key, "port": port, "protocol": "TCP"} for key, port in ports.items()
            ],
        },
    }


def budget(
    name: str, version: str, owned: Mapping[str, str], roles: Sequence[Role], unavailable: int | str
) -> Manifest:
    """How many pods of these roles may be evicted at once; each drains first."""
    return {
        "apiVersion": version,
        "kind": "PodDisruptionBudget",
        "metadata": {"name": name, "labels": dict(owned)},
        "spec": {
            "maxUnavailable": unavailable,
            "selector": {
                "matchLabels": dict(owned),
                "matchExpressions": [
                    {"key": LABEL_ROLE, "operator": "In", "values": list(roles)}
                ],
            },
        },
    }  # fmt: skip


def policies(pool: str, kind: PolicyKind) -> list[Manifest]:
    """The pool's ports are open to the pool's own pods, and nothing else of theirs to anybody.

    Whoever is to be admitted by hand from elsewhere needs a policy beside these.
    """
    if kind == "none":
        return []
    everyone = {LABEL_POOL: pool}
    return [
        _policy(kind, pool, pool, everyone, CONDOR_PORT),
        _policy(kind, pool, f"{pool}-admission", everyone | {LABEL_ROLE: "master"}, ADMIT_PORT),
    ]


def _policy(
    kind: PolicyKind, pool: str, name: str, target: Mapping[str, str], port: int
) -> Manifest:
    source = {LABEL_POOL: pool}
    if kind == "calico":
        spec: Manifest = {
            "selector": _calico(target),
            "types": ["Ingress"],
            "ingress": [
                {
                    "action": "Allow",
                    "protocol": "TCP",
                    "source": {"selector": _calico(source)},
                    "destination": {"ports": [port]},
                }
            ],
        }
    else:
        spec = {
            "podSelector": {"matchLabels": dict(target)},
            "policyTypes": ["Ingress"],
            "ingress": [
                {
                    "from": [{"podSelector": {"matchLabels": source}}],
                    "ports": [{"port": port, "protocol": "TCP"}],
                }
            ],
        }
    return {
        "apiVersion": _API[kind],
        "kind": "NetworkPolicy",
        "metadata": {"name": name, "labels": {LABEL_POOL: pool}},
        "spec": spec,
    }


def _calico(labels: Mapping[str, str]) -> str:
    return " && ".join(f"{key} == '{value}'" for key, value in labels.items())


# --- volumes ------------------------------------------------------------------------------------


def of_volume(volume: Volume, settings: Kubernetes) -> list[Manifest]:
    """A claim, for one pod at a time."""
    small = volume.name == f"{volume.labels[LABEL_POOL]}-state"
    return [
        {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": volume.name, "labels": dict(volume.labels)},
            "spec": {
                "accessModes": ["ReadWriteOnce"],
                **(
                    {"storageClassName": settings.storage_class} if settings.storage_class else {}
                ),
                "resources": {"requests": {"storage": "1Gi" if small else size(settings.storage)}},
            },
        }
    ]  # fmt: skip


# --- nodes --------------------------------------------------------------------------------------


def enrols(node: Node) -> bool:
    """Whether the node asks its master for an identity, instead of being delivered one."""
    return node.role != "master" and NODE_CERT not in node.files


def of_node(node: Node, settings: Kubernetes, *, token: bool) -> list[Manifest]:
    """A node's name, where others call it by one, and its StatefulSet.

    `token`: its join token is in a Secret, or will be; until then its pod waits.
    """
    found = [stateful_set(node, settings, token=token)]
    if node.role == "master":
        labels = {LABEL_POOL: node.labels[LABEL_POOL]}
        found.insert(0, service(node.name, labels, {LABEL_NODE: node.name}, _ports(node)))
    return found


def stateful_set(node: Node, settings: Kubernetes, *, token: bool) -> Manifest:
    """The one pod of a node, by a controller that starts it again wherever it went."""
    pool = node.labels[LABEL_POOL]
    chosen = {LABEL_NODE: node.name}
    return {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": {"name": node.name, "labels": dict(node.labels)},
        "spec": {
            "replicas": 1,
            "serviceName": pool,
            "selector": {"matchLabels": chosen},
            "template": {
                "metadata": {
                    "labels": dict(node.labels) | chosen,
                    "annotations": {"kubectl.kubernetes.io/default-container": CONTAINER},
                },
                "spec": pod(node, settings, token=token),
            },
        },
    }


def pod(node: Node, settings: Kubernetes, *, token: bool) -> Manifest:
    """A node's pod: its places are made ready, then it runs."""
    places = _places(node)
    to = node.confinement
    uid, gid = (int(number) for number in (to.user or "0:0").split(":"))
    mounts: list[Manifest] = [
        *({"name": name, "mountPath": path} for path, name in places.items()),
        *(
            {"name": volume, "mountPath": path, "subPath": part}
            for path, (volume, part) in _kept(node).items()
        ),
    ]
    volumes: list[Manifest] = [
        {
            "name": name,
            "emptyDir": {"medium": "Memory", "sizeLimit": _SMALL} if path in to.tmpfs else {},
        }
        for path, name in places.items()
    ]
    claims = dict.fromkeys(mount.volume for mount in node.mounts)
    volumes += [{"name": name, "persistentVolumeClaim": {"claimName": name}} for name in claims]
    delivered: list[Manifest] = []
    if node.files:
        delivered = [{"name": "files", "mountPath": _FILES_DIR, "readOnly": True}]
        volumes.append(_secret_volume("files", files_secret(node)))
    joining: list[Manifest] = []
    if token:
        pool = node.labels[LABEL_POOL]
        joining = [{"name": "join", "mountPath": _TOKEN_DIR, "readOnly": True}]
        volumes.append(_secret_volume("join", token_secret(pool, node.role)))
    return {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        **({"imagePullSecrets": [{"name": settings.pull_secret}]} if settings.pull_secret else {}),
        "securityContext": {"seccompProfile": {"type": "RuntimeDefault"}},
        "terminationGracePeriodSeconds": grace(node, settings),
        "initContainers": [
            {
                "name": PREPARE,
                "image": node.image,
                "command": ["/bin/sh", "-euc", prepare(node)],
                "resources": _resources(node),
                "securityContext": _security(0, 0, ["CHOWN", "DAC_OVERRIDE", "FOWNER"], True),
                "volumeMounts": [*mounts, *delivered],
            }
        ],
        "containers": [
            {
                "name": CONTAINER,
                "image": node.image,
                "args": arguments(node, token=token),
                "ports": [
                    {"name": key, "containerPort": port, "protocol": "TCP"}
                    for key, port in _ports(node).items()
                ],
                "resources": _resources(node),
                "securityContext": _security(uid, gid, to.capabilities, to.read_only),
                "startupProbe": _asked("health", period=10, failures=_PATIENCE // 10),
                "readinessProbe": _asked("health", period=20, failures=2),
                "livenessProbe": _asked("health", "--live", period=60, failures=5),
                **(_drains(settings) if node.role == "execute" else {}),
                "volumeMounts": [*mounts, *joining],
            }
        ],
        "volumes": volumes,
    }  # fmt: skip


def grace(node: Node, settings: Kubernetes) -> int:
    """How long a pod may take to end, in seconds: for an executor, its jobs counted."""
    return STOP_SECONDS + (settings.drain + VACATE if node.role == "execute" else 0)


def arguments(node: Node, *, token: bool) -> list[str]:
    """The node's command line. Its name is not its host's, which has a number behind it."""
    words = [*node.args, "--name", node.name]
    if node.role == "master":
        words += ["--pool", node.labels[LABEL_POOL]]
    if token:
        words += ["--join-token", f"{_TOKEN_DIR}/{TOKEN}"]
    # Kubernetes puts the values of variables in place of $(NAME).
    return [word.replace("$(", "$$(") for word in words]


def prepare(node: Node) -> str:
    """A script, run as root before the node: its places are the right ones' own, its files in them.

    A new volume is root's and may be written by everybody, jobs included. Files that were delivered
    are put in place once each time that they differ: since then the node renewed its certificate.
    """
    uid_gid = node.confinement.user or "0:0"
    temporary = [path for path in _places(node) if path in ("/tmp", "/var/tmp")]  # noqa: S108
    own = [path for path in (*_places(node), *_kept(node)) if path not in temporary]
    lines = [f"chmod 0755 {' '.join(own)}"] if own else []
    if own and node.confinement.user:
        lines.append(f"chown {uid_gid} {' '.join(own)}")
    if temporary:
        lines.append(f"chmod 1777 {' '.join(temporary)}")
    if node.files:
        lines += [
            f"sum=$(cat {_FILES_DIR}/* | sha256sum)",
            f'if [ "$sum" != "$(cat {STATE_DIR}/.delivered 2>/dev/null)" ]; then',
            f"  for file in {_FILES_DIR}/*; do",
            "    case $file in *.crt | */reader.key) mode=0644 ;; *) mode=0600 ;; esac",
            f"    install -o {uid_gid.partition(':')[0]} -g {uid_gid.partition(':')[2]} "
            f'-m "$mode" "$file" {STATE_DIR}/',
            "  done",
            f'  echo "$sum" > {STATE_DIR}/.delivered',
            "fi",
        ]
    return "\n".join(lines) + "\n"


def _places(node: Node) -> dict[str, str]:
    """Where the node may write and nothing is kept: path → the volume's name in the pod."""
    to = node.confinement
    kept = _kept(node)
    paths = [*to.tmpfs, *(path for path in to.volumes if path not in kept)]
    if node.files and STATE_DIR not in (*paths, *kept):
        paths.append(STATE_DIR)
    return {path: path.strip("/").replace("/", "-").replace(".", "-") for path in paths}


def _kept(node: Node) -> dict[str, tuple[str, str]]:
    """Where what the node writes is kept: path → the claim and the folder in it.

    A folder, because a volume's own root may hold what its file system keeps there. The access
    point's identity lies beside its queue: they belong together.
    """
    folders = {SPOOL_DIR: "spool", HOME_DIR: "home", STATE_DIR: "state"}
    kept = {mount.path: (mount.volume, folders.get(mount.path, "data")) for mount in node.mounts}
    if node.role == "submit" and SPOOL_DIR in kept and STATE_DIR not in kept:
        kept[STATE_DIR] = (kept[SPOOL_DIR][0], folders[STATE_DIR])
    return kept


def _secret_volume(name: str, of: str) -> Manifest:
    return {"name": name, "secret": {"secretName": of, "defaultMode": 0o400}}


def _ports(node: Node) -> dict[str, int]:
    return {"condor": CONDOR_PORT} | ({"admit": ADMIT_PORT} if node.role == "master" else {})


def _resources(node: Node) -> Manifest:
    """An executor reserves all that it offers to jobs; of the others that is only a limit."""
    limits = {
        **({"cpu": _cpus(node.cpus)} if node.cpus else {}),
        **({"memory": size(node.memory)} if node.memory else {}),
    }
    if node.role == "execute":
        return {"requests": dict(limits), "limits": limits}
    # Where the pool file says nothing the limit is wide, and nothing to reserve.
    wide = node.memory in (None, MASTER_MEMORY, SUBMIT_MEMORY)
    memory = _RESERVED_MEMORY if wide or node.memory is None else node.memory
    cpus = node.cpus or _RESERVED_CPUS
    return {"requests": {"cpu": _cpus(cpus), "memory": size(memory)}, "limits": limits}


def _security(uid: int, gid: int, capabilities: Sequence[str], read_only: bool) -> Manifest:
    return {
        "runAsUser": uid,
        "runAsGroup": gid,
        "runAsNonRoot": uid != 0,
        "privileged": False,
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": read_only,
        "capabilities": {
            "drop": ["ALL"],
            **({"add": list(capabilities)} if capabilities else {}),
        },
    }


def _asked(*words: str, period: int, failures: int) -> Manifest:
    """A probe by `roost-node health`, which gives HTCondor 8 s to answer.

    It costs the container half a second of CPU, so it is not asked more often than it must be; and
    on a busy machine, where that takes long, a node must not be taken for a dead one.
    """
    return {
        "exec": {"command": ["roost-node", *words]},
        "periodSeconds": period,
        "timeoutSeconds": 20,
        "failureThreshold": failures,
    }


def _drains(settings: Kubernetes) -> Manifest:
    """Whoever ends the pod, Kubernetes included, its jobs finish first."""
    command = ["roost-node", "drain", "--limit", str(settings.drain)]
    return {"lifecycle": {"preStop": {"exec": {"command": command}}}}


def _cpus(cpus: float) -> str:
    """CPUs in Kubernetes' words: whole ones, or thousandths."""
    return f"{cpus:g}" if cpus == int(cpus) else f"{round(cpus * 1000)}m"


def size(size: int) -> str:
    """Bytes in Kubernetes' words: the largest unit in which it is whole."""
    unit = next(unit for unit in ("Gi", "Mi", "Ki", "") if size % _BYTES[unit] == 0)
    return f"{size // _BYTES[unit]}{unit}"


_BYTES: Final = {"Gi": 2**30, "Mi": 2**20, "Ki": 2**10, "": 1}


# --- files --------------------------------------------------------------------------------------


class KubernetesRenderer:
    """Renders `pool.yaml`; `secret_files` says what its first lines make Secrets of."""

    FILE: Final = "pool.yaml"

    def __init__(self, settings: Kubernetes) -> None:
        self._settings = settings

    def render(self, plan: Plan) -> Mapping[str, str]:
        """`pool.yaml`; the same plan gives the same text. Holds no secret. Raises BadInput."""
        check(plan)
        text = yaml.dump_all(
            manifests(plan, self._settings), Dumper=_Dumper, sort_keys=False, allow_unicode=True,
            width=100, explicit_start=True,
        )  # fmt: skip
        return {self.FILE: _header(plan, self._settings) + str(text)}


class _Dumper(yaml.SafeDumper):
    """For people, and for Kubernetes, whose YAML takes more words for numbers than PyYAML's."""

    def ignore_aliases(self, data: object) -> bool:  # noqa: ARG002 - PyYAML's signature
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = "|" if "\n" in text else "'" if re.match(r"[-+.]?[0-9]|[yYnN]$", text) else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _text)


def manifests(plan: Plan, settings: Kubernetes) -> list[Manifest]:
    """Everything of the plan but its Secrets, in the order in which it is made."""
    name = settings.namespace
    found = [namespace(name)] if name and name != "default" else []
    for network in plan.networks:
        found += of_network(network, settings)
    for volume in plan.volumes:
        found += of_volume(volume, settings)
    for node in plan.nodes:
        found += of_node(node, settings, token=enrols(node))
    if name:
        for each in found:
            if each["kind"] != "Namespace":
                each["metadata"]["namespace"] = name
    return found


def secret_files(plan: Plan) -> Mapping[str, Secret]:
    """What `pool.yaml` cannot hold: the configuration from the pool file, by relative path."""
    return {
        f"secrets/{EXTRA_CONFIG}": node.files[EXTRA_CONFIG]
        for node in plan.nodes[:1]
        if EXTRA_CONFIG in node.files
    }


def _header(plan: Plan, settings: Kubernetes) -> str:
    kubectl = f"kubectl -n {settings.namespace}" if settings.namespace else "kubectl"
    master = next(node for node in plan.nodes if node.role == "master")
    lines = [
        f"HTCondor pool {plan.pool} ({pool_domain(plan.pool)}), rendered by "
        "`roost render kubernetes`.",
        "",
        f"{kubectl} apply -f {KubernetesRenderer.FILE}",
    ]
    for path in secret_files(plan):
        lines.append(
            f"{kubectl} create secret generic {files_secret(plan.nodes[0])} --from-file={path}"
        )
    lines.append(f"{kubectl} rollout status statefulset/{master.name}")
    roles: list[Role] = ["submit", "execute"]
    lines += [
        f"{kubectl} exec {pod_name(master.name)} -c {CONTAINER} -- roost-node join-token {role} "
        f"--own --expires {TOKEN_LIFETIME} --uses {TOKEN_USES} | {kubectl} create secret generic "
        f"{token_secret(plan.pool, role)} --from-file={TOKEN}=/dev/stdin"
        for role in roles
        if any(node.role == role for node in plan.nodes)
    ]
    lines += [
        "",
        "The other pods wait for these Secrets. The tokens are good for a year: after that, a pod",
        "that Kubernetes makes anew needs another one in the same Secret.",
    ]
    return "".join(f"# {line}".rstrip() + "\n" for line in lines) + "\n"
