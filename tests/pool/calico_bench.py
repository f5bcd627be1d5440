"""A replica of Calico's routed network: two hosts that are network namespaces, no bridge anywhere.

As Calico wires a container: an address of its own with /32, a link-local gateway that only the
host's proxy ARP answers for, and a route on the host; the other host's block by way of that host.
What is a node's is made with `docker run --network none` and wired afterwards.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager

from node_bench import Node

from roost._run import run

#: Two hosts' blocks of the pool of addresses, as Calico's IPAM hands them out. The first address,
#: which would be a network's own anywhere else, is one like any other.
BLOCKS = ("192.168.142.0/26", "192.168.142.64/26")
GATEWAY = "169.254.1.1"
#: Between the two hosts.
_LINK = ("198.18.77.1", "198.18.77.2")


class Calico:
    """Two hosts, and the containers wired to them."""

    def __init__(self) -> None:
        tag = secrets.token_hex(3)
        self.hosts = (f"roost-{tag}-a", f"roost-{tag}-b")
        self._wires = 0

    def make(self) -> None:
        for host in self.hosts:
            run(["ip", "netns", "add", host]).check()
        first, second = self.hosts
        run(["ip", "-netns", first, "link", "add", "up0", "type", "veth", "peer", "name", "up0",
             "netns", second]).check()  # fmt: skip
        for index, host in enumerate(self.hosts):
            there = 1 - index
            self._ip(host, "address", "add", f"{_LINK[index]}/30", "dev", "up0")
            self._ip(host, "link", "set", "up0", "up")
            self._ip(host, "link", "set", "lo", "up")
            self._ip(host, "route", "add", BLOCKS[there], "via", _LINK[there])
            # Without a default route the kernel answers no ARP for the gateway.
            self._ip(host, "route", "add", "default", "via", _LINK[there])
            self._set(host, "ip_forward", "1")

    def remove(self) -> None:
        for host in self.hosts:
            run(["ip", "netns", "delete", host])

    def wire(self, node: Node, host: int, address: str) -> None:
        """Give a container its address on a host."""
        self._wires += 1
        cable, pid = f"cali{self._wires}", str(node.inspect()["State"]["Pid"])
        on = self.hosts[host]
        self._ip(on, "link", "add", cable, "type", "veth", "peer", "name", "cali0", "netns", pid)
        self._set(on, f"conf/{cable}/proxy_arp", "1")
        self._ip(on, "link", "set", cable, "up")
        self._ip(on, "route", "add", f"{address}/32", "dev", cable, "scope", "link")
        inside = ("nsenter", "--target", pid, "--net", "ip")
        for words in (
            ("address", "add", f"{address}/32", "dev", "cali0"),
            ("link", "set", "cali0", "up"),
            ("route", "add", GATEWAY, "dev", "cali0", "scope", "link"),
            ("route", "add", "default", "via", GATEWAY, "dev", "cali0"),
        ):
            run([*inside, *words]).check()

    def wire6(self, node: Node, host: int, address: str) -> None:
        """Give a container an IPv6 address and no other; all of a host's are neighbours."""
        self._wires += 1
        cable, pid = f"cali{self._wires}", str(node.inspect()["State"]["Pid"])
        on = self.hosts[host]
        if self._wires == 1:
            self._ip(on, "link", "add", "br0", "type", "bridge")
            self._ip(on, "link", "set", "br0", "up")
        self._ip(on, "link", "add", cable, "type", "veth", "peer", "name", "cali0", "netns", pid)
        self._ip(on, "link", "set", cable, "master", "br0", "up")
        inside = ("nsenter", "--target", pid, "--net")
        enable = "echo 0 > /proc/sys/net/ipv6/conf/all/disable_ipv6"
        run([*inside, "sh", "-c", enable]).check()
        run([*inside, "ip", "link", "set", "cali0", "up"]).check()
        run([*inside, "ip", "address", "add", f"{address}/64", "dev", "cali0", "nodad"]).check()

    def _ip(self, host: str, *words: str) -> None:
        run(["ip", "-netns", host, *words]).check()

    def _set(self, host: str, name: str, value: str) -> None:
        script = f"echo {value} > /proc/sys/net/ipv4/{name}"
        run(["ip", "netns", "exec", host, "sh", "-c", script]).check()


@contextmanager
def calico() -> Iterator[Calico]:
    made = Calico()
    try:
        made.make()
        yield made
    finally:
        made.remove()
