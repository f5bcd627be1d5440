"""Another release for a pool that runs: which nodes go when, and what is left of a failure.

Values in, values out. HTCondor's releases understand each other's protocol, so nodes of both work
together for as long as it takes.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Final

from roost.fit import summary
from roost.plan import Ensure, Node, Observed, ObservedNode, Plan, Step, diff, fits, leaving

#: One in so many executors goes at a time, at least one: the others run the jobs.
BATCH: Final = 4

#: After each stage the pool must answer before the next begins.
Stages = tuple[tuple[Step, ...], ...]


def stages(wanted: Plan, observed: Observed) -> Stages:
    """The steps of `diff`, and of those that bring another image a stage for each batch of nodes.

    Executors go first, a few at a time and drained: whether the release works in this pool shows
    where a failure costs nothing, and while the queue and its master are what they were. Then the
    access point: its jobs are all in its volumes, and what runs waits for it, within the lease. The
    master last and once: everything depends on it, and running jobs alone do not. HTCondor's manual
    names no order.

    Another network divides the old nodes from the new: then all go together.
    """
    there = {node.name: node for node in observed.nodes}
    moving = [
        node
        for node in wanted.nodes
        if node.name in there
        and there[node.name].image != node.image
        and not fits(node, there[node.name])
    ]
    if not moving or {item.name for item in wanted.networks} != set(observed.networks):
        return tuple(filter(None, (diff(wanted, observed),)))
    names = {node.name for node in moving}
    rest = diff(
        replace(wanted, nodes=tuple(node for node in wanted.nodes if node.name not in names)),
        replace(observed, nodes=tuple(node for node in observed.nodes if node.name not in names)),
    )
    executors = [node for node in moving if node.role == "execute"]
    size = max(1, len(executors) // BATCH)
    batches = [executors[at : at + size] for at in range(0, len(executors), size)]
    batches += [[node] for role in ("submit", "master") for node in moving if node.role == role]
    anew = (_anew(batch, [there[node.name] for node in batch]) for batch in batches)
    return tuple(filter(None, (rest, *anew)))


def _anew(nodes: Sequence[Node], there: Sequence[ObservedNode]) -> tuple[Step, ...]:
    return (*leaving(there, "gets another release"), *map(Ensure, nodes))


def headline(stage: Sequence[Step], observed: Observed) -> str:
    """What a stage does: `p-cpu-1, p-cpu-2 get forky`, or how much it makes and removes."""
    if not moves(stage, observed):
        return summary(stage)
    items = [step.item for step in stage if isinstance(step, Ensure)]
    nodes = [item for item in items if isinstance(item, Node)]
    tag = nodes[0].image.rpartition(":")[2]
    return f"{', '.join(node.name for node in nodes)} get{'s' * (len(nodes) == 1)} {tag}"


def moves(stage: Sequence[Step], observed: Observed) -> bool:
    """Whether a stage brings another image to nodes: then a failure undoes that stage alone."""
    images = {node.name: node.image for node in observed.nodes}
    return any(
        isinstance(step, Ensure)
        and isinstance(step.item, Node)
        and images.get(step.item.name, step.item.image) != step.item.image
        for step in stage
    )


def mended(wanted: Plan, old: Plan, observed: Observed, doubted: Collection[str]) -> Plan:
    """What to have after an upgrade that stopped: what got the new release keeps it, unless it is
    `doubted`; the rest is what it was.
    """
    there = {node.name: node for node in observed.nodes}
    before = {node.name: node for node in old.nodes}
    return replace(
        wanted,
        nodes=tuple(
            node
            if node.name not in before
            or (node.name not in doubted and node.name in there and fits(node, there[node.name]))
            else before[node.name]
            for node in wanted.nodes
        ),
    )


def census(observed: Observed) -> str:
    """`forky on p-cpu-1; trixie on p-master, p-submit`: which nodes have which image."""
    nodes: dict[str, list[str]] = {}
    for node in observed.nodes:
        nodes.setdefault(node.image.rpartition(":")[2], []).append(node.name)
    return "; ".join(f"{tag} on {', '.join(nodes[tag])}" for tag in sorted(nodes))
