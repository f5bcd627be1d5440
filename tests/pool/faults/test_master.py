"""A master that dies: jobs run on, no other node is touched, and nothing is forgotten."""

from __future__ import annotations

import re
from collections.abc import Iterator

import faults_bench
import pytest
from faults_bench import Pool, in_the_way, started
from node_bench import docker, eventually
from roost_bench import well

pytestmark = pytest.mark.engine

POOL = """\
submit: {users: [john]}
execute: [{count: 2, cpus: 2, memory: 256MiB}]
"""
IDENTITY = "sha256sum /var/lib/roost/ca.crt /var/lib/roost/ca.key"


@pytest.fixture(scope="module")
def pool(image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pool]:
    with faults_bench.pool(tmp_path_factory.mktemp("pool"), POOL) as pool:
        yield pool


def known_since(pool: Pool) -> int:
    """Since when john is known to use CPUs; 0 while nobody knows, or is there to ask."""
    text = pool.submit.tried("condor_userprio -allusers -l", user="john")[1]
    names = dict(re.findall(r'^Name(\d+) = "(\w+)@', text, re.MULTILINE))
    begun = dict(re.findall(r"^BeginUsageTime(\d+) = (\d+)$", text, re.MULTILINE))
    return max((int(begun[number]) for number, name in names.items() if name == "john"), default=0)


def test_a_master_that_dies(pool: Pool, image: str) -> None:
    others = [pool.submit, pool.node("execute-1"), pool.node("execute-2")]
    before = [started(node) for node in others]
    identity = pool.master.sh(IDENTITY)
    long = pool.start("long", 1, "until [ -e /tmp/go ]; do sleep 1; done; echo $1 on $(hostname)")
    (node,) = long.running().values()
    since = eventually(lambda: known_since(pool), 60, pool.master)

    # Killed, and started again as it was.
    docker("kill", pool.master.name)
    waits = pool.start("waits", 1, "echo $1 on $(hostname)")
    docker("start", pool.master.name)
    assert waits.done().keys() == {0}
    assert eventually(lambda: known_since(pool), 60, pool.master) == since

    # Made anew at another address.
    address = pool.master.ip
    docker("rm", "-f", pool.master.name)
    with in_the_way(pool, image):
        well("up", pool.file)
        assert pool.master.ip != address
        after = pool.start("after", 4, "echo $1 on $(hostname)")
        for executor in others[1:]:
            executor.sh("touch /tmp/go")
        assert after.done().keys() == {0, 1, 2, 3}
        assert long.done() == {0: f"0 on {node}\n"}
        assert eventually(lambda: known_since(pool), 60, pool.master) == since
    assert pool.master.sh(IDENTITY) == identity
    assert [len(each) for each in long.executions().values()] == [1]
    rows = long.attributes("NumJobStarts", "NumShadowStarts")
    assert (rows[0]["NumJobStarts"], rows[0]["NumShadowStarts"]) == (1, 1)
    assert [started(node) for node in others] == before
