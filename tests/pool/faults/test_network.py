"""A network that is cut: a short cut costs nothing, a long one ends in a clean re-run."""

from __future__ import annotations

import time
from collections.abc import Iterator

import faults_bench
import pytest
from faults_bench import Jobs, Pool
from node_bench import Node, docker, eventually

pytestmark = pytest.mark.engine

POOL = """\
submit: {{users: [john], lease: 120s}}
execute: [{{count: 2, cpus: 2, memory: 256MiB}}]
network: {{name: {network}}}
config: |
  UPDATE_INTERVAL = 10
"""


@pytest.fixture(scope="module")
def network(image: str) -> Iterator[str]:
    with faults_bench.network() as name:
        yield name


@pytest.fixture(scope="module")
def pool(network: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pool]:
    text = POOL.format(network=network)
    with faults_bench.pool(tmp_path_factory.mktemp("pool"), text) as pool:
        yield pool


def test_half_a_minute_without_any_network_costs_nothing(pool: Pool, network: str) -> None:
    """Every node is cut off at once; some jobs end while nobody can be told."""
    jobs = pool.start(
        "short", 4, "sleep $((10 + 15 * $1)); echo $1 on $(hostname)", "job_lease_duration = 60"
    )  # the default
    where = jobs.running()
    nodes = [pool.master, pool.submit, pool.node("execute-1"), pool.node("execute-2")]
    addresses = [(node, node.ip) for node in nodes]
    for node in nodes:
        docker("network", "disconnect", network, node.name)
    time.sleep(30)  # this is what is tested, no wait for anything
    for node, address in addresses:
        docker("network", "connect", "--ip", address, network, node.name)
    assert jobs.done() == {n: f"{n} on {node}\n" for n, node in where.items()}
    assert {n: len(each) for n, each in jobs.executions().items()} == dict.fromkeys(range(4), 1)
    rows = jobs.attributes("NumJobStarts", "NumShadowStarts")
    assert {(row["NumJobStarts"], row["NumShadowStarts"]) for row in rows.values()} == {(1, 1)}


def test_an_access_point_that_is_given_another_address(pool: Pool, network: str) -> None:
    """Its jobs run on, and it finds them again.

    Not those whose starter speaks in the moment of the move: it waits for an answer for minutes.
    """
    for executor in (pool.node("execute-1"), pool.node("execute-2")):
        executor.sh("echo STARTER_UPDATE_INTERVAL = 200 >/etc/condor/config.d/91-rare.conf")
    jobs = pool.start("moved", 2, "sleep 30; echo $1 on $(hostname)")
    where = jobs.running()
    # A starter's first report comes after 8 s: before, its startd does not know where it is.
    eventually(lambda: jobs.log().count("\n006 (") >= 2, 40, pool.submit)
    other = pool.submit.ip.rpartition(".")[0] + ".201"
    docker("network", "disconnect", network, pool.submit.name)
    docker("network", "connect", "--ip", other, network, pool.submit.name)
    assert jobs.done() == {n: f"{n} on {node}\n" for n, node in where.items()}
    assert {n: len(each) for n, each in jobs.executions().items()} == dict.fromkeys(range(2), 1)
    for executor in (pool.node("execute-1"), pool.node("execute-2")):
        executor.sh("rm /etc/condor/config.d/91-rare.conf")


#: Runs until it is told to end, and says where.
UNTIL_TOLD = "until [ -e /tmp/go ]; do sleep 1; done; echo $1 on $(hostname)"
LEASE = "job_lease_duration = 20"


def runs_there(jobs: Jobs, node: str) -> bool:
    """Whether a process of these jobs is on that node, whatever its access point knows."""
    return Node(node).pid(f"{jobs.name}.sh") != 0


def test_an_executor_that_stays_cut_off(pool: Pool, network: str) -> None:
    """Its jobs run elsewhere, and end there; later it is back at another address."""
    jobs = pool.start("lost", 2, UNTIL_TOLD, LEASE)
    where = jobs.running()
    lost = Node(where[0])
    assert runs_there(jobs, lost.name)
    (other,) = {"execute-1", "execute-2"} - {lost.name.removeprefix(f"{pool.name}-")}
    victims = {n for n, node in where.items() if node == lost.name}
    docker("network", "disconnect", network, lost.name)
    again = eventually(
        lambda: {n for n, each in jobs.executions().items() if len(each) == 2},
        240, pool.submit,
    )  # fmt: skip
    assert again <= victims
    eventually(lambda: not runs_there(jobs, lost.name), 180, lost)
    pool.node(other).sh("touch /tmp/go")
    outputs = jobs.done()
    assert outputs == {n: f"{n} on {pool.name}-{other}\n" for n in where}
    back = pool.submit.ip.rpartition(".")[0] + ".202"
    docker("network", "connect", "--ip", back, network, lost.name)
    lost.sh("touch /tmp/go")
    eventually(lambda: lost.name in pool.machines(), 240, lost, pool.master)
    there = pool.start("there", 1, UNTIL_TOLD, f'requirements = Machine == "{lost.name}"')
    assert there.done() == {0: f"0 on {lost.name}\n"}
    # What it had is forgotten: each job ran as often as it had to.
    runs = {n: [node for _, node in each] for n, each in jobs.executions().items()}
    assert runs == {
        n: [node, f"{pool.name}-{other}"] if n in victims else [node]
        for n, node in where.items()
    }  # fmt: skip


def test_an_access_point_that_is_cut_off_for_too_long(pool: Pool, network: str) -> None:
    """Nothing of its jobs is left on the executors when it is back; each runs once more."""
    executors = [pool.node("execute-1"), pool.node("execute-2")]
    for node in executors:
        node.sh("rm -f /tmp/go")
    jobs = pool.start("alone", 3, UNTIL_TOLD, LEASE)
    where = jobs.running()
    assert all(runs_there(jobs, node) for node in where.values())
    address = pool.submit.ip
    docker("network", "disconnect", network, pool.submit.name)
    eventually(lambda: not any(runs_there(jobs, node) for node in where.values()), 180, *executors)
    docker("network", "connect", "--ip", address, network, pool.submit.name)
    for node in executors:
        node.sh("touch /tmp/go")
    outputs = jobs.done()
    runs = jobs.executions()
    assert {len(each) for each in runs.values()} == {2}, runs
    assert outputs == {n: f"{n} on {each[-1][1]}\n" for n, each in runs.items()}
