"""A pool by name, on a network of its own: any start order, and a master that moves."""

from __future__ import annotations

from functools import partial

import pytest
from node_bench import Containers, Node, done, eventually, healthy, submit, waiting

pytestmark = pytest.mark.engine


def says(node: Node, words: str) -> bool:
    """Whether the node has said a line with these words."""
    return any(words in line for line in node.said())


def test_any_order_and_a_master_that_comes_back_elsewhere(containers: Containers) -> None:
    network = ("--network", containers.network("net"))
    state = ("-v", f"{containers.volume('state')}:/var/lib/roost")
    name = containers.name("master")
    execute = containers.run("execute", "-e", name, options=network)
    access = containers.run("submit", "-s", name, "-u", "john", options=network)
    wait = f"waiting for the master {name}:9619: its name does not resolve yet"
    for node in (execute, access):
        eventually(partial(says, node, wait), 30, node)
        assert node.health() == (
            "roost-node: this node has not started yet: it waits for its identity"
        )

    master = containers.run("master", "-m", options=(*network, *state))
    # The name that the nodes call is not the one in the master's certificate.
    assert master.hostname != name
    ids = eventually(lambda: waiting(master, 2), 30, master, execute, access)
    master.sh("roost-node approve " + " ".join(ids))
    for node in (master, execute, access):
        healthy(node)
    submit(access, "john", "echo before", name="before")
    assert done(access, "john", "before") == "before\n"

    old = master.ip
    containers.discard(master)
    # Somebody else may get the old address now.
    containers.run("other", "-e", "cm.invalid", options=network)
    master = containers.run("master", "-m", options=(*network, *state))
    assert master.ip != old
    for node in (execute, access):
        eventually(partial(says, node, f"the master has moved to {master.ip}"), 60, node)
    for node in (master, execute, access):
        healthy(node, 90)
    submit(access, "john", "echo after", name="after")
    assert done(access, "john", "after") == "after\n"
