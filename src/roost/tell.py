"""What nodes that stay are told when the pool around them changes."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from roost import inside
from roost.engines.base import Engine
from roost.fit import made_anew
from roost.plan import Observed, Plan, Ref, Retire, Step
from roost_node.pace import pace
from roost_node.vocab import second_master


def masters(engine: Engine, target: Plan, before: Observed, steps: Sequence[Step]) -> None:
    """Tell the nodes that stay what the pool's masters are, where that has changed."""
    gone = {ref.name for step in steps if isinstance(step, Retire) for ref in step.refs}
    if second_master(target.pool) not in made_anew(steps) | gone:
        return
    names = ",".join(node.name for node in target.nodes if node.role == "master")
    stayed = {node.name for node in before.nodes} - gone
    for node in target.nodes:
        if node.role != "master" and node.name in stayed:
            argv = ["roost-node", "masters", names]
            engine.exec(Ref("node", node.name), argv, timeout=60).check()


def users(engine: Engine, pool: str, names: Sequence[str], fresh: Collection[str] = ()) -> None:
    """Have an account for each of these on the access point, unless it is `fresh`."""
    for node in engine.observe(pool).nodes:
        if node.role == "submit" and node.name not in fresh:
            inside.ask(engine, node.ref, "user", "add", *names)


def size(
    engine: Engine, pool: str, executors: int, before: Observed, fresh: Collection[str] = ()
) -> None:
    """Tell the masters how large the pool is, where that changes how fast they should match.

    The second of two, if it is `fresh`, knows nothing; the first keeps it on its volume.
    """
    had = sum(node.role == "execute" for node in before.nodes)
    for node in engine.observe(pool).nodes:
        knows = 0 if node.name == second_master(pool) and node.name in fresh else had
        if node.role == "master" and pace(executors) != pace(knows):
            argv = ["roost-node", "pace", str(executors)]
            engine.exec(node.ref, argv, timeout=60).check()
