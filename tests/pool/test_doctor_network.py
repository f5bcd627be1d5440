"""`roost doctor --network` on a real pool: fault after fault, and the cause that it names."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from node_bench import Node, docker, eventually, healthy
from roost_bench import Json, at_home, fresh, roost, taken_down, well

from roost._run import run
from roost.security import state_home
from roost_node import pki
from roost_node.vocab import CA_CERT, CA_KEY, NODE_CERT, NODE_KEY, STATE_DIR

pytestmark = pytest.mark.engine


@dataclass(frozen=True)
class Pool:
    name: str
    master: Node
    submit: Node
    execute: Node

    def doctor(self) -> Json:
        """Its report."""
        return json.loads(roost("doctor", "--network", "--json", "--name", self.name).stdout)

    def errors(self) -> dict[str, str]:
        """Where → what is wrong and what to do."""
        return {
            finding["where"].replace(f"{self.name}-", ""): f"{finding['what']}; {finding['advice']}"
            for finding in self.doctor()["findings"]
            if finding["severity"] == "error"
        }


@pytest.fixture(scope="module")
def pool(image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pool]:
    with at_home(tmp_path_factory.mktemp("home")), taken_down(fresh("reach")) as name:
        well("up", "--name", name, "--executors", "1", "--memory", "256MiB", "--engine", "docker")
        yield Pool(name, *(Node(f"{name}-{node}") for node in ("master", "submit", "execute-1")))


def in_network(node: Node, *argv: str) -> str:
    """Run `argv` in the node's network namespace, with the machine's tools and rights."""
    pid = str(node.inspect()["State"]["Pid"])
    return run(["nsenter", "--target", pid, "--net", *argv]).check().text


def test_nothing_is_wrong(pool: Pool) -> None:
    """Every pair of roles in both directions, with a real echo and HTCondor's own consent."""
    report = pool.doctor()
    assert report["findings"] == []
    roles = ("master", "submit", "execute")
    assert {tuple(pair["roles"]) for pair in report["pairs"]} == {
        (source, target) for source in roles for target in roles if source != target
    }
    for pair in report["pairs"]:
        assert (pair["port"], pair["ping_by"], pair["mtu"]) == ("open", "icmp", 1500)
        assert 0 < pair["ping"] < 1000
        assert set(pair["levels"].values()) == {"ALLOW"}
        assert abs(pair["clock"]) < 1
    shown = roost("doctor", "--network", "--name", pool.name)
    assert shown.returncode == 0
    assert re.search(
        rf"^{pool.execute.name} +{pool.master.name} +{pool.master.ip} +[\d.]+ ms +open +open +ok ",
        shown.stdout, re.MULTILINE,
    )  # fmt: skip
    assert shown.stdout.endswith(f"Nothing is wrong with the network of the pool {pool.name}.\n")


@contextmanager
def rule(node: Node, *words: str) -> Iterator[None]:
    """A rule of the node's own firewall."""
    in_network(node, "iptables", "-A", "INPUT", "-i", "eth0", *words)
    try:
        yield
    finally:
        in_network(node, "iptables", "-D", "INPUT", "-i", "eth0", *words)


@pytest.mark.parametrize(
    ("verdict", "said"),
    [
        ("DROP", "does not answer, though the host does: a firewall drops it"),
        ("REJECT --reject-with tcp-reset", "though HTCondor listens there: a firewall rejects it"),
    ],
)
def test_a_firewall(pool: Pool, verdict: str, said: str) -> None:
    with rule(pool.execute, "-p", "tcp", "--dport", "9618", "-j", *verdict.split()):
        report = pool.doctor()
    found = {finding["severity"]: finding for finding in report["findings"]}
    assert found["error"]["where"] == f"{pool.submit.name} → {pool.execute.name}"
    assert said in found["error"]["what"]
    assert "let TCP 9618 pass" in found["error"]["advice"]
    assert found["warning"]["where"] == f"{pool.master.name} → {pool.execute.name}"


def test_no_echo_and_no_admission(pool: Pool) -> None:
    """Round trips are TCP's then, and say so."""
    with (
        rule(pool.master, "-p", "icmp", "-j", "DROP"),
        rule(pool.master, "-p", "tcp", "--dport", "9619", "-j", "DROP"),
    ):
        shown = roost("doctor", "--network", "--name", pool.name)
    assert shown.returncode == 0
    row = rf"^{pool.submit.name} +{pool.master.name} +\S+ +[\d.]+ ms \(tcp\) +open +timeout +ok "
    assert re.search(row, shown.stdout, re.MULTILINE)
    assert "port 9619 of the master is dropped by a firewall" in shown.stdout


@contextmanager
def credentials(node: Node, files: dict[str, bytes]) -> Iterator[None]:
    """Other files of its identity, until the end."""
    names = " ".join(files)
    node.sh(f"cd {STATE_DIR}; mkdir /run/before; cp -p {names} /run/before")
    try:
        for name, content in files.items():
            node.sh(f"cat > {STATE_DIR}/{name}", stdin=content.decode())
        yield
    finally:
        node.sh(f"cp -p /run/before/* {STATE_DIR}; rm -r /run/before")


def test_a_certificate_with_another_name(pool: Pool) -> None:
    home = state_home() / pool.name
    key = pki.new_key()
    cert = pki.sign_node(
        (home / CA_KEY).read_bytes(), (home / CA_CERT).read_bytes(), pki.public_key(key),
        "execute", "stray", days=1,
    )  # fmt: skip
    with credentials(pool.execute, {NODE_CERT: cert, NODE_KEY: key}):
        report = pool.doctor()
    (error,) = [finding for finding in report["findings"] if finding["severity"] == "error"]
    assert error["where"] == pool.execute.name
    assert f"certificate is for stray, and its name is {pool.execute.name}" in error["what"]
    refused = {(p["source"], p["target"]) for p in report["pairs"] if "ALLOW" not in
               p["levels"].values()}  # fmt: skip
    assert refused == {(node.name, pool.execute.name) for node in (pool.master, pool.submit)}


def test_another_pools_ca(pool: Pool) -> None:
    key, (ca_key, ca) = pki.new_key(), pki.new_ca("elsewhere")
    cert = pki.sign_node(ca_key, ca, pki.public_key(key), "execute", pool.execute.name, days=1)
    with credentials(pool.execute, {CA_CERT: ca, NODE_CERT: cert, NODE_KEY: key}):
        errors = pool.errors()
    assert errors.keys() == {"execute-1"}
    assert re.match(r"it has another pool's CA \(\w{12}\) than the master", errors["execute-1"])
    assert "roost join" in errors["execute-1"]


@pytest.fixture(scope="module")
def fake_time(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Debian's libfaketime, unpacked."""
    directory = tmp_path_factory.mktemp("faketime")
    directory.chmod(0o777)  # apt's own user writes there
    subprocess.run(["apt-get", "download", "-q", "libfaketime"], cwd=directory, check=True,
                   capture_output=True)  # fmt: skip
    (package,) = directory.glob("*.deb")
    run(["dpkg", "-x", str(package), str(directory)]).check()
    (library,) = directory.glob("usr/lib/*/faketime/libfaketime.so.1")
    return library


def test_a_clock(pool: Pool, fake_time: Path) -> None:
    """What starts on the access point sees another time, condor_ping too."""
    docker("cp", str(fake_time), f"{pool.submit.name}:/opt/faketime.so")
    pool.submit.sh("echo +1h > /etc/faketimerc; echo /opt/faketime.so > /etc/ld.so.preload")
    try:
        report = pool.doctor()
    finally:
        pool.submit.sh("rm /etc/ld.so.preload /etc/faketimerc")
    (error,) = report["findings"]
    assert (error["severity"], error["where"]) == ("error", pool.submit.name)
    assert re.match("its clock is 3(599|600|601) s ahead of the master's", error["what"])
    assert "synchronise" in error["advice"]


def link_outside(node: Node) -> str:
    """The machine's end of the node's cable."""
    (link,) = json.loads(in_network(node, "ip", "-json", "link", "show", "eth0"))
    links = json.loads(run(["ip", "-json", "link"]).check().text)
    (name,) = [each["ifname"] for each in links if each["ifindex"] == link["link_index"]]
    return str(name)


def test_a_path_that_takes_less_than_both_ends_think(pool: Pool) -> None:
    """Large packets vanish: a handshake with certificates in it does not come through."""
    cable = link_outside(pool.execute)
    run(["ip", "link", "set", cable, "mtu", "1300"]).check()
    try:
        report = pool.doctor()
    finally:
        run(["ip", "link", "set", cable, "mtu", "1500"]).check()
    tried = {(p["source"], p["target"]): p["mtu"] for p in report["pairs"]}
    assert tried[pool.submit.name, pool.execute.name] == 1300
    assert tried[pool.submit.name, pool.master.name] == 1500
    for finding in report["findings"]:
        assert pool.execute.name in finding["where"]
        assert "packets of 1500 bytes get lost on the way" in finding["what"]
        assert "none larger than 1300 bytes" in finding["what"]
    assert f"{pool.master.name}, {pool.submit.name} → {pool.execute.name}" in {
        finding["where"] for finding in report["findings"]
    }


def test_an_interface_that_takes_less(pool: Pool) -> None:
    in_network(pool.execute, "ip", "link", "set", "eth0", "mtu", "1300")
    try:
        (finding,) = pool.doctor()["findings"]
    finally:
        in_network(pool.execute, "ip", "link", "set", "eth0", "mtu", "1500")
    assert (finding["severity"], finding["where"]) == ("warning", pool.execute.name)
    assert "takes 1300 bytes at a time (MTU), the master's 1500" in finding["what"]


def test_two_networks_and_the_wrong_one_told(pool: Pool) -> None:
    """Docker lets its networks not reach each other."""
    private = fresh("reach-net")
    docker("network", "create", private)
    try:
        docker("network", "connect", private, pool.execute.name)
        networks = pool.execute.inspect()["NetworkSettings"]["Networks"]
        own, other = (networks[name]["IPAddress"] for name in (pool.name, private))
        moved(pool.execute, other)
        errors = pool.errors()
        moved(pool.execute, own)
    finally:
        docker("network", "disconnect", "-f", private, pool.execute.name)
        docker("network", "rm", private)
    assert errors.keys() == {"execute-1"}
    assert f"it has several addresses and tells {other}" in errors["execute-1"]
    assert f"they reach it at {own}; set NETWORK_INTERFACE = {own}" in errors["execute-1"]


def moved(node: Node, address: str) -> None:
    """Its daemons tell everybody that they are at `address`."""
    node.sh(f"echo NETWORK_INTERFACE = {address} > /etc/condor/config.d/91-where.conf")
    node.sh("condor_restart")
    told = "cat /var/log/condor/.startd_address"
    eventually(lambda: f"<{address}:9618?" in node.tried(told)[1], 60, node)


def test_a_wrong_name(pool: Pool) -> None:
    """In /etc/hosts; the last, because HTCondor itself follows the name there."""
    healthy(pool.execute)
    pool.submit.sh(f"echo 192.0.2.1 {pool.master.name} >> /etc/hosts")
    errors = pool.errors()
    ((where, said),) = errors.items()
    assert where == "submit → master"
    assert f"the name {pool.master.name} is 192.0.2.1 there, which is not that node" in said
    assert f"it is at {pool.master.ip}; correct the entry in DNS or in /etc/hosts" in said
