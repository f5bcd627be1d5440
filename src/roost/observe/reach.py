"""Ask every node how it reaches the others: two rounds of `roost-node probe`, all side by side."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from roost.ads import sentence
from roost.engines.base import Engine
from roost.errors import PoolNotFound, RoostError
from roost.observe.network import LEVELS, NetworkReport, Pair, Place, judge, pair, place
from roost.plan import ObservedNode
from roost_node.probe import where

#: Executors that are tried: each is asked about the others, and they about it.
MOST: Final = 32
#: Seconds for a round in one node: every target of it that does not answer takes a few.
_PATIENCE: Final = 120.0


def examine_network(engine: Engine, pool: str) -> NetworkReport:
    """Try every pair of nodes that have something to say to each other. Raises PoolNotFound."""
    nodes = engine.observe(pool).nodes
    if not nodes:
        raise PoolNotFound(
            f"there is no pool {pool!r} on {engine.name}",
            advice="run `roost up`, or choose another with --name; `roost ls` lists them",
        )
    executors = [node for node in nodes if node.role == "execute"]
    left_out = {node.name for node in executors[MOST:]}
    asked = [node for node in nodes if node.name not in left_out]
    silent: dict[str, str] = {}
    with ThreadPoolExecutor(8) as workers:

        def every(
            requests: Mapping[ObservedNode, Sequence[Mapping[str, Any]]],
        ) -> dict[str, tuple[Mapping[str, Any], float]]:
            answers = workers.map(lambda each: _asked(engine, *each), requests.items())
            found = {}
            for node, answer in zip(requests, answers, strict=True):
                if isinstance(answer, str):
                    silent.setdefault(node.name, answer)
                else:
                    found[node.name] = answer
            return found

        first = every({node: [] for node in asked})
        places = {
            name: place(said, off, where(said["told"])[0]) for name, (said, off) in first.items()
        }
        second = every({
            node: [_target(places[node.name], to) for to in _others(places[node.name], places)]
            for node in asked
            if node.name in places
        })  # fmt: skip
    pairs: list[Pair] = [
        pair(places[name], places[reached["node"]], reached)
        for name, (said, _) in second.items()
        for reached in said["reached"]
    ]
    return NetworkReport(tuple(pairs), judge(places, pairs, silent), len(left_out))


def _asked(
    engine: Engine, node: ObservedNode, targets: Sequence[Mapping[str, Any]]
) -> tuple[Mapping[str, Any], float] | str:
    """What the node says, and the seconds that its clock is ahead of this machine's; or why not."""
    if node.state != "running":
        return f"it is {node.state}"
    began = time.time()
    try:
        done = engine.exec(
            node.ref, ["roost-node", "probe"], stdin=json.dumps(targets).encode(),
            timeout=_PATIENCE,
        )  # fmt: skip
    except RoostError as error:
        return str(error)
    if done.status:
        return sentence(done.stderr or done.text)
    said = json.loads(done.text)
    clock = said["clock"]
    return said, clock - min(max(clock, began), time.time())


def _others(source: Place, places: Mapping[str, Place]) -> list[Place]:
    return [to for to in places.values() if to is not source and (source.role, to.role) in LEVELS]


def _target(source: Place, to: Place) -> dict[str, Any]:
    address = to.address or next(iter(to.addresses), "")
    name = to.node
    if to.role == "master" and len(source.masters) == 1 and source.role != "master":
        (name,) = source.masters
    return {
        "node": to.node,
        "name": name,
        "addresses": [address, *(each for each in to.addresses if each != address)],
        "mtu": to.addresses.get(address, 0),
        "admits": to.role == "master" and source.role != "master",
        "daemon": to.told,
        "levels": LEVELS[source.role, to.role],
    }
