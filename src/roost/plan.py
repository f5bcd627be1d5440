"""What a pool is made of, and what must change to get there: values in, values out.

`plan` turns a PoolSpec into a Plan; `diff` turns a Plan and what an engine observed into Steps.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass, field, replace
from typing import Final, Literal, Protocol

from roost.confine import MASTER_MEMORY, SUBMIT_MEMORY, Confinement, confinement
from roost.data import document
from roost.placing import Placement, network_name, place
from roost.security import Secret
from roost.spec import CERTIFICATES, Execute, PoolSpec
from roost_node.pace import health_every
from roost_node.vocab import (
    BIND_DIR,
    DATA,
    EXTRA_CONFIG,
    HOME_DIR,
    LABEL_GROUP,
    LABEL_POOL,
    LABEL_ROLE,
    LABEL_SPEC,
    ROLE_FLAG,
    ROLES,
    SPOOL_DIR,
    STATE_DIR,
    Role,
    second_master,
)

#: What an executor's container may use beyond the memory that it offers to jobs, in bytes: a job
#: that uses all it asked for must not cost the node its daemons.
DAEMONS_MEMORY: Final = 128 * 2**20


#: How long a job may take to end when its executor is told to stop, in seconds: less than the
#: engine waits for the whole node (STOP_SECONDS), HTCondor's own end included.
VACATE: Final = 20


class Keys(Protocol):
    """Whoever issues the nodes' credentials."""

    def node_files(self, role: Role, node: str) -> Mapping[str, Secret]:
        """The files of a node's identity, by their names in the node's state directory."""
        ...


class Keyless:
    """Stands in for the keys where no credentials are delivered: a plan is only compared, say."""

    def node_files(self, role: Role, node: str) -> Mapping[str, Secret]:  # noqa: ARG002
        return {}


@dataclass(frozen=True)
class Network:
    """A network that the pool owns."""

    name: str
    labels: Mapping[str, str]
    host: str = ""
    """The host that it is on, of several; empty if there is one engine alone."""


@dataclass(frozen=True)
class Volume:
    """A named volume that the pool owns."""

    name: str
    labels: Mapping[str, str]
    host: str = ""


@dataclass(frozen=True)
class Mount:
    """A volume's place in a node."""

    volume: str
    path: str


@dataclass(frozen=True)
class Bind:
    """A directory of the engine's machine that jobs on a node may mount."""

    source: str
    path: str
    read_only: bool


@dataclass(frozen=True)
class Node:
    """One container of the pool."""

    name: str
    role: Role
    group: str
    image: str
    args: tuple[str, ...]
    """What follows the image's name: `-e physics-master --cpus 1`."""
    network: str
    labels: Mapping[str, str]
    cpus: float | None = None
    """CPU limit; none if None."""
    memory: int | None = None
    """Memory limit in bytes; none if None."""
    health_every: int | None = None
    """Seconds between two health checks; the image's own if None."""
    mounts: tuple[Mount, ...] = ()
    binds: tuple[Bind, ...] = ()
    confinement: Confinement = field(default_factory=Confinement)
    placement: Placement = field(default_factory=Placement)
    """Where it is, of several hosts, and how it is found there."""
    files: Mapping[str, Secret] = field(default_factory=dict, compare=False)
    """Delivered into STATE_DIR before the node starts; by file name."""

    @property
    def host(self) -> str:
        return self.placement.host


Item = Network | Volume | Node


def bound(bind: Bind) -> str:
    """A bind mount in the words of Docker, Podman and Compose."""
    return f"{bind.source}:{bind.path}:{'ro' if bind.read_only else 'rw'}"


@dataclass(frozen=True)
class Plan:
    """Everything that a pool needs, in the order in which it is made."""

    pool: str
    networks: tuple[Network, ...]
    volumes: tuple[Volume, ...]
    nodes: tuple[Node, ...]


NodeState = Literal["created", "running", "paused", "exited", "dead"]
Health = Literal["starting", "healthy", "unhealthy", "none"]


@dataclass(frozen=True)
class Ref:
    """A thing that an engine holds, by kind and name."""

    kind: Literal["node", "volume", "network"]
    name: str


@dataclass(frozen=True)
class ObservedNode:
    """A node as the engine sees it."""

    name: str
    role: Role
    group: str
    image: str
    spec: str
    """The hash of the Node it was made from."""
    state: NodeState
    health: Health
    address: str = ""
    """Its IP address on the pool's network; empty if it has none."""
    exit_code: int | None = None
    restarts: int = 0
    """How often the engine started it again because it had failed."""
    started: str = ""
    """When its process started last, in ISO 8601; empty if never."""
    networks: tuple[str, ...] = ()
    """The networks that it is on, or will be once it runs: names and ids."""
    host: str = ""
    """Of several hosts, the one that it is on."""

    @property
    def ref(self) -> Ref:
        return Ref("node", self.name)


@dataclass(frozen=True)
class Observed:
    """What an engine holds of one pool; read from labels, never from memory."""

    pool: str
    networks: tuple[str, ...] = ()
    volumes: tuple[str, ...] = ()
    nodes: tuple[ObservedNode, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.networks or self.volumes or self.nodes)


@dataclass(frozen=True)
class Ensure:
    """Create the item; if it stands still or is off its network, have it go on there."""

    item: Item


@dataclass(frozen=True)
class Retire:
    """Remove exactly these."""

    refs: tuple[Ref, ...]
    reason: str


@dataclass(frozen=True)
class Drain:
    """Let the jobs on these executors finish and give them no more, so that they may go."""

    refs: tuple[Ref, ...]


Step = Ensure | Retire | Drain


def node_name(pool: str, group: str, index: int | None = None) -> str:
    """`physics-master`, `physics-submit`, `physics-cpu-1`."""
    return f"{pool}-{group}" if index is None else f"{pool}-{group}-{index}"


def plan(
    spec: PoolSpec,
    keys: Keys,
    *,
    standing: Collection[str] = (),
    named: Mapping[str, Sequence[str]] | None = None,
) -> Plan:
    """Everything that `spec` needs.

    Executors named in `standing` keep their names before a group takes the lowest free numbers,
    so that whoever scales down may choose which of them go. Those in `named`, by group, keep
    whatever names an engine gave them.
    """
    owned = {LABEL_POOL: spec.name}
    head = spec.hosts[0].name if spec.hosts else ""
    networks = () if spec.network.name else tuple(
        Network(network_name(spec, host), owned, host)
        for host in [each.name for each in spec.hosts] or [""]
    )  # fmt: skip
    spool = Volume(f"{spec.name}-spool", owned, head)
    home = Volume(f"{spec.name}-home", owned, head)
    state = Volume(f"{spec.name}-state", owned, head)
    executors = sum(group.count for group in spec.execute)
    master = node_name(spec.name, "master")
    second = second_master(spec.name) if spec.master.count > 1 else ""
    data = document(spec.data, spec.data_urls) if spec.data or spec.data_urls else ""
    binds = tuple(
        Bind(entry.path, f"{BIND_DIR}/{name}", entry.read_only)
        for name, entry in sorted(spec.data.items())
        if entry.type == "bind"
    )

    def node(
        role: Role,
        group: str,
        name: str,
        options: Sequence[str],
        cpus: float | None,
        memory: int | None,
        mounts: tuple[Mount, ...] = (),
        told: Sequence[str] = (),
    ) -> Node:
        at = place(spec, role, master, group, _number(name))
        extra = ("-c", f"{STATE_DIR}/{EXTRA_CONFIG}") if spec.config else ()
        known = data if role != "master" else ""
        if known:
            extra = (*extra, "--data", f"{STATE_DIR}/{DATA}")
        executes = role == "execute"

        def args(*masters: str, told: Sequence[str] = ()) -> tuple[str, ...]:
            address = () if role == "master" else (",".join(masters),)
            return (ROLE_FLAG[role], *address, *told, *options, *at.options, *extra)

        # What a node's masters and users are, it is told in place: for that it is not made anew.
        bare = Node(
            name, role, group, spec.image_name, args(master), at.network, {}, cpus, memory, None,
            mounts, binds if executes else (), _confined(role, cpus, mounts, bool(data)), at,
        )  # fmt: skip
        labels = owned | {
            LABEL_ROLE: role,
            LABEL_GROUP: group,
            LABEL_SPEC: _fingerprint(bare, spec.config, known),
        }
        files = dict(keys.node_files(role, name))
        if spec.config:
            files[EXTRA_CONFIG] = Secret(spec.config.encode())
        if known:
            files[DATA] = Secret(known.encode())
        return replace(
            bare, args=args(*filter(None, (master, second)), told=told), labels=labels, files=files,
            # Not in the fingerprint: a pool that grows makes no node anew for it.
            health_every=health_every(executors) if executes else None,
        )  # fmt: skip

    public = ("--public-read",) if spec.security.public_read else ()
    master_memory = spec.master.memory or MASTER_MEMORY
    nodes = [
        node("master", "master", master,
             [*(("--peer", second) if second else ()), *_lifetime(spec), *public],
             spec.master.cpus, master_memory, (Mount(state.name, STATE_DIR),)),
    ]  # fmt: skip
    if second:
        nodes.append(
            node("master", "master", second, ("--peer", master, *public),
                 spec.master.cpus, master_memory)
        )  # fmt: skip
    nodes.append(
        node("submit", "submit", node_name(spec.name, "submit"),
             ("--lease", str(spec.submit.lease), *public),
             spec.submit.cpus, spec.submit.memory or SUBMIT_MEMORY,
             (Mount(spool.name, SPOOL_DIR), Mount(home.name, HOME_DIR)),
             told=[word for user in spec.submit.users for word in ("-u", user)])
    )  # fmt: skip
    nodes += [
        node("execute", group.name, name,
             ("--cpus", f"{group.cpus:g}", "--memory", str(group.memory // 2**20),
              "--vacate", str(VACATE)),
             group.cpus, group.memory + DAEMONS_MEMORY)
        for group in spec.execute
        for name in _names(spec.name, group, standing, (named or {}).get(group.name, ()))
    ]  # fmt: skip
    return Plan(spec.name, networks, (spool, home, state), tuple(nodes))


def _lifetime(spec: PoolSpec) -> tuple[str, ...]:
    seconds = spec.security.certificates
    return () if seconds == CERTIFICATES else ("--certificates", f"{seconds}s")


def _confined(role: Role, cpus: float | None, mounts: tuple[Mount, ...], data: bool) -> Confinement:
    """The role's rights; where a volume of the pool's is mounted there is no nameless one."""
    to = confinement(role, cpus, mounts=data)
    mounted = {mount.path for mount in mounts}
    return replace(to, volumes=tuple(path for path in to.volumes if path not in mounted))


def _number(name: str) -> int:
    """The number at the end of a node's name; 1 if an engine named it otherwise."""
    last = name.rpartition("-")[2]
    return int(last) if last.isdecimal() else 1


def _names(pool: str, group: Execute, standing: Collection[str], named: Sequence[str]) -> list[str]:
    given = list(named[: group.count])
    numbers = _numbers(f"{pool}-{group.name}-", group.count - len(given), standing)
    return given + [node_name(pool, group.name, number) for number in numbers]


def _numbers(prefix: str, count: int, standing: Collection[str]) -> list[int]:
    """`count` numbers: those after `prefix` in `standing` first, then the lowest free ones."""
    named = re.compile(re.escape(prefix) + "([1-9][0-9]{0,8})")
    taken = sorted({int(match[1]) for match in map(named.fullmatch, standing) if match})[:count]
    free = (number for number in itertools.count(1) if number not in taken)
    return sorted([*taken, *itertools.islice(free, count - len(taken))])


def _fingerprint(node: Node, config: str, data: str) -> str:
    """What a change of which means: this node must be made anew. Credentials are not part of it."""
    said = [node.image, node.args, node.network, node.cpus, node.memory,
            [(mount.volume, mount.path) for mount in node.mounts],
            astuple(node.confinement)[:-1], config]  # fmt: skip
    # Only where there is any: a pool without data is not made anew because others have some.
    said += [data, [astuple(bind) for bind in node.binds]] if data else []
    if node.host:  # what was made for one engine alone keeps its fingerprint
        said.append(astuple(node.placement))
    return hashlib.sha256(json.dumps(said).encode()).hexdigest()[:16]


def diff(wanted: Plan, observed: Observed) -> tuple[Step, ...]:
    """What must be done so that the engine holds `wanted`, and touches nothing that already fits.

    Nodes that are not wanted go first; then what is missing or different is made, master first;
    networks that nothing uses any more go last. Volumes hold data and stay. The nodes of one role
    that must be made anew go together, so that executors drain side by side. An executor that runs
    is drained before it goes, also an idle one: a job may start on it at any moment.
    """
    there = {node.name: node for node in observed.nodes}
    wanted_names = {node.name for node in wanted.nodes}
    surplus = [node for node in observed.nodes if node.name not in wanted_names]
    steps = leaving(surplus, "not in the pool file any more")
    steps += [Ensure(item) for item in wanted.networks if item.name not in observed.networks]
    steps += [Ensure(volume) for volume in wanted.volumes if volume.name not in observed.volumes]
    for role in ROLES:
        nodes = [node for node in wanted.nodes if node.role == role]
        anew = [
            there[node.name]
            for node in nodes
            if node.name in there and not fits(node, there[node.name])
        ]
        steps += leaving(anew, "must be made anew")
        steps += [
            Ensure(node)
            for node in nodes
            if node.name not in there
            or there[node.name] in anew
            or there[node.name].state != "running"
            or node.network not in there[node.name].networks
        ]
    unused = tuple(
        Ref("network", name)
        for name in observed.networks
        if name not in {network.name for network in wanted.networks}
    )
    if unused:
        steps.append(Retire(unused, "not in the pool file any more"))
    return tuple(steps)


def leaving(nodes: Sequence[ObservedNode], reason: str) -> list[Step]:
    """The steps with which these go: what runs jobs is drained first."""
    drained = tuple(
        node.ref for node in nodes if node.role == "execute" and node.state == "running"
    )
    steps: list[Step] = [Drain(drained)] if drained else []
    return [*steps, Retire(tuple(node.ref for node in nodes), reason)] if nodes else []


def fits(node: Node, there: ObservedNode) -> bool:
    """Whether what is there is `node`, running or to be started again."""
    return there.spec == node.labels[LABEL_SPEC] and there.state != "dead"


def with_jobs(observed: Observed) -> tuple[str, ...]:
    """The volumes without which jobs are lost: the queue, and the files that they work on."""
    names = {f"{observed.pool}-spool", f"{observed.pool}-home"}
    return tuple(name for name in observed.volumes if name in names)


def everything(observed: Observed, *, keep: Iterable[str] = ()) -> tuple[Step, ...]:
    """The steps that remove a pool: nodes, then volumes but those in `keep`, then networks.

    The master goes after the others: a node that says goodbye to a collector that has just gone
    waits 20 s for an answer.
    """
    kept = set(keep)
    groups = (
        tuple(node.ref for node in observed.nodes if node.role != "master"),
        tuple(node.ref for node in observed.nodes if node.role == "master"),
        tuple(Ref("volume", name) for name in observed.volumes if name not in kept),
        tuple(Ref("network", name) for name in observed.networks),
    )
    return tuple(Retire(refs, "the pool is taken down") for refs in groups if refs)
