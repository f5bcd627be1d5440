"""A pool at one moment: its nodes, its slots, its jobs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Final, Literal

from roost.ads import Ad, ask, number, sickness
from roost.engines.base import Engine
from roost.errors import PoolNotReady, RoostError
from roost.plan import Health, NodeState, Observed, ObservedNode
from roost_node.vocab import Role

_SLOT: Final = (
    "Name", "Machine", "State", "Activity", "Cpus", "Memory", "TotalSlotCpus", "TotalSlotMemory",
    "RemoteOwner", "JobId", "PartitionableSlot", "DynamicSlot", "RoostSick", "RoostSickReason",
    "RoostSickSince", "RoostFailing", "RoostPaused", "DataMountsProblem",
)  # fmt: skip


@dataclass(frozen=True)
class NodeView:
    """A node as the engine sees it."""

    name: str
    role: Role
    group: str
    state: NodeState
    health: Health
    address: str
    image: str
    started: str
    exit_code: int | None
    host: str = ""
    """Of several hosts, the one that it is on."""

    @classmethod
    def of(cls, node: ObservedNode) -> NodeView:
        return cls(
            node.name, node.role, node.group, node.state, node.health, node.address, node.image,
            node.started, node.exit_code, node.host,
        )  # fmt: skip


@dataclass(frozen=True)
class SlotView:
    """A slot as the collector knows it."""

    name: str
    node: str
    kind: Literal["partitionable", "dynamic", "static"]
    state: str
    """HTCondor's words: Unclaimed, Claimed, Owner, …"""
    activity: str
    cpus: float
    """What is left of a partitionable slot; what a job has of a dynamic one."""
    memory: int
    """MiB; as `cpus`."""
    total_cpus: float
    total_memory: int
    user: str
    """Whose job it runs; empty if none."""
    job: str
    sick: str = ""
    """Why its node takes no more jobs, in its own words; empty if it is well."""
    sick_since: int = 0
    """When it noticed, in seconds since the epoch."""
    failing: int = 0
    """So many of its node's last jobs failed within seconds, if they are too many."""
    unmounted: str = ""
    """Why its node cannot mount all of the pool's `data:`; empty if it can."""

    @classmethod
    def of(cls, ad: Ad) -> SlotView:
        return cls(
            name=str(ad.get("Name", "")),
            node=str(ad.get("Machine", "")),
            kind="partitionable" if ad.get("PartitionableSlot")
            else "dynamic" if ad.get("DynamicSlot") else "static",
            state=str(ad.get("State", "")),
            activity=str(ad.get("Activity", "")),
            cpus=number(ad.get("Cpus")) or 0,
            memory=int(number(ad.get("Memory")) or 0),
            total_cpus=number(ad.get("TotalSlotCpus")) or 0,
            total_memory=int(number(ad.get("TotalSlotMemory")) or 0),
            user=str(ad.get("RemoteOwner", "")).partition("@")[0],
            job=str(ad.get("JobId", "")),
            sick=sickness(ad),
            sick_since=int(number(ad.get("RoostSickSince")) or 0),
            failing=int(number(ad.get("RoostFailing")) or 0),
            unmounted=str(ad.get("DataMountsProblem") or ""),
        )  # fmt: skip


@dataclass(frozen=True)
class JobTotals:
    """How many jobs of all users are in the queue, by state."""

    jobs: int = 0
    idle: int = 0
    running: int = 0
    held: int = 0
    suspended: int = 0
    completed: int = 0
    removed: int = 0

    @classmethod
    def of(cls, ad: Ad) -> JobTotals:
        return cls(**{
            name: int(ad.get(f"Allusers{name.capitalize()}", 0))
            for name in cls.__dataclass_fields__
        })  # fmt: skip


@dataclass(frozen=True)
class Snapshot:
    """A pool at one moment."""

    pool: str
    nodes: tuple[NodeView, ...]
    slots: tuple[SlotView, ...] | None
    """By name; None if the collector does not answer."""
    jobs: JobTotals | None
    """None if the schedd does not answer."""
    no_slots: str = ""
    """Why there is no answer about the slots, in one sentence."""
    no_jobs: str = ""
    """Why there is none about the jobs."""

    @property
    def cpus(self) -> tuple[float, float]:
        """CPUs in use and in all; dynamic slots are parts of a partitionable one."""
        whole = [slot for slot in self.slots or () if slot.kind != "dynamic"]
        total = sum(slot.total_cpus for slot in whole)
        free = sum(
            slot.cpus for slot in whole if slot.kind == "partitionable" or slot.state != "Claimed"
        )
        return total - free, total

    def slots_of(self, node: str) -> tuple[SlotView, ...]:
        """A node's slots; none if the collector does not answer."""
        return self._by_node.get(node, ())

    @cached_property
    def _by_node(self) -> Mapping[str, tuple[SlotView, ...]]:
        found: dict[str, list[SlotView]] = {}
        for slot in self.slots or ():
            found.setdefault(slot.node.partition(".")[0], []).append(slot)
        return {node: tuple(slots) for node, slots in found.items()}

    def to_json(self) -> Mapping[str, Any]:
        """As plain dicts, lists and values."""
        return asdict(self)


def running(observed: Observed, role: Role) -> ObservedNode:
    """The pool's running node of a role. Raises PoolNotReady, saying what is with it instead.

    Of two masters, the one that has run for longer: it knows all nodes.
    """
    nodes = [node for node in observed.nodes if node.role == role]
    nodes.sort(key=lambda node: node.started)
    if not nodes:
        raise PoolNotReady(f"the pool {observed.pool} has no {role} node", advice="run `roost up`")
    for node in nodes:
        if node.state == "running":
            return node
    code = "" if nodes[0].exit_code is None else f" with code {nodes[0].exit_code}"
    raise PoolNotReady(
        f"{nodes[0].name} is not running but {nodes[0].state}{code}",
        advice=f"see `roost logs {nodes[0].name}`",
    )


def snapshot(engine: Engine, pool: str) -> Snapshot:
    """The pool as it is now; what does not answer is left out, and it says why.

    Raises EngineError only if the engine itself does not answer.
    """
    observed = engine.observe(pool)
    slots: tuple[SlotView, ...] | None = None
    jobs: JobTotals | None = None
    no_slots = no_jobs = ""
    try:
        slots = _slots(engine, observed)
    except RoostError as error:
        no_slots = error.message
    try:
        jobs = _totals(engine, observed)
    except RoostError as error:
        no_jobs = error.message
    nodes = tuple(NodeView.of(node) for node in observed.nodes)
    return Snapshot(pool, nodes, slots, jobs, no_slots, no_jobs)


def _slots(engine: Engine, observed: Observed) -> tuple[SlotView, ...]:
    argv = ["condor_status", "-json", "-attributes", ",".join(_SLOT)]
    ads = ask(engine, running(observed, "master").ref, argv, timeout=20)
    return tuple(sorted((SlotView.of(ad) for ad in ads), key=lambda slot: slot.name))


def _totals(engine: Engine, observed: Observed) -> JobTotals:
    argv = ["condor_q", "-allusers", "-totals", "-json"]
    ads = ask(engine, running(observed, "submit").ref, argv, timeout=20)
    return JobTotals.of(ads[0]) if ads else JobTotals()
