"""The same image on other networks: Calico's way of routing, a dead resolver, IPv6."""

from __future__ import annotations

import json
import re
import secrets
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from calico_bench import calico
from node_bench import Containers, Node, docker, done, eventually, healthy, submit
from roost_bench import at_home, fresh, taken_down, well

pytestmark = pytest.mark.engine

#: TEST-NET: nobody answers there.
DEAD_RESOLVER = ("--dns", "192.0.2.53")


@pytest.fixture(scope="module")
def nodes(shared: Containers) -> Iterator[dict[str, Node]]:
    """A pool on the replica: master and executor on one host, the access point on the other."""
    make = shared

    def node(of: str, *argv: str) -> Node:
        return make.run(of, *argv, options=("--network", "none", "--hostname", of, *DEAD_RESOLVER))

    with calico() as network:
        master = node("lab-master", "-m")
        eventually(lambda: "waiting for a network: this node has no address yet" in master.said(),
                   30, master)  # fmt: skip
        network.wire(master, 0, "192.168.142.0")
        access = node("lab-submit", "-s", "192.168.142.0", "-u", "john")
        network.wire(access, 1, "192.168.142.64")
        execute = node("lab-execute", "-e", "192.168.142.0", "--cpus", "1", "--memory", "256")
        network.wire(execute, 0, "192.168.142.1")
        eventually(
            lambda: master.tried("roost-node approve --network 192.168.142.0/24 --for 10m")[0] == 0,
            60, master,
        )  # fmt: skip
        yield {"master": master, "submit": access, "execute": execute}


def test_calicos_network_with_a_dead_resolver(nodes: dict[str, Node]) -> None:
    """No name is known but each node's own, in /etc/hosts; nobody waits for the resolver."""
    for node in nodes.values():
        healthy(node)
        assert node.sh("cat /etc/resolv.conf").count("192.0.2.53") == 1
        route = node.sh("cat /proc/net/route").splitlines()[1].split()
        assert route[0] == "cali0"
    submit(nodes["submit"], "john", "hostname")
    assert done(nodes["submit"], "john") == "lab-execute\n"
    addresses = nodes["submit"].sh("condor_status -any -af MyType MyAddress", user="john")
    assert re.search(r"^Machine <192\.168\.142\.1:9618", addresses, re.MULTILINE)
    assert re.search(r"^Scheduler <192\.168\.142\.64:9618", addresses, re.MULTILINE)
    assert re.search(r"^Collector <192\.168\.142\.0:9618", addresses, re.MULTILINE)


def test_a_dead_resolver_costs_a_start_nothing(nodes: dict[str, Node]) -> None:
    """Each daemon looks its own name up when it starts; each waited for over a minute once."""
    node = nodes["execute"]
    assert re.search(r"^192\.168\.142\.1\tlab-execute$", node.sh("cat /etc/hosts"), re.MULTILINE)
    marks = re.findall(
        r"^(\S+ \S+) .*(?:STARTING UP|Setting ready state 'Ready' for STARTD)",
        node.sh("cat /var/log/condor/MasterLog"), re.MULTILINE,
    )  # fmt: skip
    first, *_, last = (time.mktime(time.strptime(at, "%m/%d/%y %H:%M:%S")) for at in marks)
    assert last - first < 45


def test_ipv6_alone(containers: Containers) -> None:
    def node(of: str, *argv: str) -> Node:
        options = ("--network", "none", "--hostname", of, *DEAD_RESOLVER)
        return containers.run(of, *argv, options=options)

    with calico() as network:
        master = node("six-master", "-m")
        network.wire6(master, 0, "fd42::2")
        access = node("six-submit", "-s", "fd42::2", "-u", "john")
        network.wire6(access, 0, "fd42::3")
        execute = node("six-execute", "-e", "fd42::2", "--cpus", "1", "--memory", "256")
        network.wire6(execute, 0, "fd42::4")
        eventually(
            lambda: master.tried("roost-node approve --network fd42::/64 --for 10m")[0] == 0,
            60, master,
        )  # fmt: skip
        for each in (master, access, execute):
            healthy(each)
        submit(access, "john", "hostname")
        assert done(access, "john") == "six-execute\n"
        machines = access.sh("condor_status -af MyAddress", user="john")
        assert set(re.findall(r"<(\S+?):9618", machines)) == {"[fd42::4]"}


@pytest.fixture
def dual_stack() -> Iterator[str]:
    name = fresh("dual-net")
    subnet = f"fd42:{secrets.randbelow(0xFFFF):x}::/64"
    docker("network", "create", "--ipv6", "--subnet", subnet, name)
    yield name
    docker("network", "rm", name)


def test_a_network_of_ones_own_with_ipv4_and_ipv6(
    image: str, dual_stack: str, tmp_path: Path
) -> None:
    """`--network NAME`: roost takes what is there, and leaves it when the pool goes."""
    with at_home(tmp_path), taken_down(fresh("dual")) as name:
        well("up", "--name", name, "--network", dual_stack, "--executors", "1", "--memory",
             "256MiB", "--engine", "docker")  # fmt: skip
        report = json.loads(well("doctor", "--network", "--json", "--name", name))
        assert report["findings"] == []
        both = well(
            "exec", "--name", name, "execute-1", "--", "cat", "/var/log/condor/.startd_address"
        )
        assert re.search(r"addrs=[^&]*\[fd42-", both)
        assert re.search(r"addrs=[^&]*\d+\.\d+\.\d+\.\d+-9618", both)
        assert "several addresses" not in well("logs", "--name", name, "execute-1")
