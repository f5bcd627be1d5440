"""Which executors stay, what a change means, which nodes are late: values in, values out."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from roost.plan import Ensure, Node, Observed, ObservedNode, Retire, Step
from roost.spec import PoolSpec
from roost_node.vocab import Role


@dataclass(frozen=True)
class Load:
    """What an executor does."""

    jobs: int = 0
    seconds: int = 0
    """How long its oldest job has run."""
    draining: bool = False
    """It takes no new job."""


IDLE: Final = Load()


def loads(*said: str) -> dict[str, Load]:
    """What each executor does, of lines `slot1_1@node|7.0|12|true`: host, job, seconds, draining.

    The same job may be in several of the texts: the access point's and the collector's.
    """
    jobs: dict[str, dict[str, int]] = {}
    draining: set[str] = set()
    for line in "\n".join(said).splitlines():
        words = [word.strip() for word in line.split("|")]
        if len(words) != 4:
            continue
        host, job, seconds, drains = words
        node = host.rpartition("@")[2].split(".")[0]
        own = jobs.setdefault(node, {})
        if drains == "true":
            draining.add(node)
        if job and job != "undefined":
            own[job] = max(own.get(job, 0), int(seconds) if seconds.isdigit() else 0)
    return {
        node: Load(len(own), max(own.values(), default=0), node in draining)
        for node, own in jobs.items()
    }


def staying(
    spec: PoolSpec, standing: Iterable[ObservedNode], does: Mapping[str, Load]
) -> frozenset[str]:
    """The executors that keep their places.

    Of a group with too many, first what does not run goes, then what drains already, then what is
    idle, then what has the fewest jobs and of those the youngest; of equals the highest number.
    """
    counts = {group.name: group.count for group in spec.execute}
    groups: dict[str, list[ObservedNode]] = {}
    for node in standing:
        if node.role == "execute":
            groups.setdefault(node.group, []).append(node)

    def worth(node: ObservedNode) -> tuple[bool, bool, int, int, list[tuple[int, str]]]:
        load = does.get(node.name, IDLE)
        stands = node.state != "running"
        return stands, load.draining, -load.jobs, -load.seconds, _natural(node.name)

    return frozenset(
        node.name
        for group, nodes in groups.items()
        for node in sorted(nodes, key=worth)[: counts.get(group, 0)]
    )


def _natural(name: str) -> list[tuple[int, str]]:
    """A sort key by which `cpu-10` comes after `cpu-9`."""
    return [(int(part), "") if part.isdecimal() else (0, part) for part in re.split(r"(\d+)", name)]


def named(observed: Observed, standing: Iterable[str]) -> dict[str, list[str]]:
    """Group → the executors of it that stand, whatever they are called."""
    stay = set(standing)
    groups: dict[str, list[str]] = {}
    for node in observed.nodes:
        if node.role == "execute" and node.name in stay:
            groups.setdefault(node.group, []).append(node.name)
    return groups


def made_anew(steps: Iterable[Step]) -> frozenset[str]:
    """The names of the nodes that these steps make or start."""
    return frozenset(
        step.item.name for step in steps if isinstance(step, Ensure) and isinstance(step.item, Node)
    )


def as_observed(spec: PoolSpec, observed: Observed) -> PoolSpec:
    """`spec` with the counts that the engine holds now."""
    counts = Counter(node.group for node in observed.nodes if node.role == "execute")
    return spec.scaled({group.name: counts[group.name] for group in spec.execute})


def missing(wanted: Mapping[str, Role], ads: str) -> list[str]:
    """The nodes whose daemons the collector does not know, of `wanted`: node → role.

    `ads` has a line `MyType Name` for each ad. The master is known by its negotiator's ad; of two,
    each by its own condor_master's too.
    """
    lines = [line.split() for line in ads.splitlines()]
    pairs = [(words[0], words[1]) for words in lines if len(words) == 2]
    there = {name.split("@")[-1].split(".")[0] for kind, name in pairs if kind == "Scheduler"}
    there |= {name.split("@")[-1].split(".")[0] for _, name in pairs if name.startswith("slot")}
    if any(kind == "Negotiator" for kind, _ in pairs):
        masters = {name for name, role in wanted.items() if role == "master"}
        alive = {name.split(".")[0] for kind, name in pairs if kind == "DaemonMaster"}
        there |= masters if len(masters) == 1 else masters & alive
    return [name for name in wanted if name not in there]


def many(count: int, thing: str) -> str:
    """`1 node`, `2 nodes`."""
    return f"{count} {thing}" if count == 1 else f"{count} {thing}s"


def summary(steps: Iterable[Step]) -> str:
    """`1 network, 2 volumes, 4 nodes; removing 1 node`."""
    made: Counter[str] = Counter()
    gone = 0
    for step in steps:
        if isinstance(step, Retire):
            gone += len(step.refs)
        elif isinstance(step, Ensure):
            made[type(step.item).__name__.lower()] += 1
    said = [f"making {', '.join(many(made[kind], kind) for kind in made)}"] if made else []
    return " and ".join([*([f"removing {many(gone, 'node')}"] if gone else []), *said])
