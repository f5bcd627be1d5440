"""Where a pool's nodes go, if it has several hosts, and how they find each other: values alone.

Two ways, of which the pool file chooses one:

routed      every host's engine has a network of the same name (`network: {name, master}`) on which
            the nodes reach each other wherever they are. The master has the address that is named.
published   master and access point publish their ports on the first host's `address`, the nodes on
            that host share a private network, and executors elsewhere call: they are behind their
            engine's NAT, notice it, and are called through the master (CCB). No other port is open.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import chain, zip_longest
from typing import Final

from roost.spec import PoolSpec
from roost_node.vocab import ADMIT_PORT, CONDOR_PORT, Role

#: HTCondor's port on a published access point: 9618 and 9619 there are the master's.
SUBMIT_PORT: Final = 9620


@dataclass(frozen=True)
class Placement:
    """One node's place."""

    host: str = ""
    """The host's name in the pool file; empty where the pool has one engine alone."""
    network: str = ""
    options: tuple[str, ...] = ()
    """What the node is told of it."""
    publish: tuple[int, ...] = ()
    """Ports that are the same on the host."""
    publish_at: str = ""
    """The host's address for that."""
    address: str = ""
    """Its own on the network; the engine chooses if empty."""
    names: tuple[tuple[str, str], ...] = ()
    """Names that no engine knows there, each with its address."""


def network_name(spec: PoolSpec, host: str = "") -> str:
    """The network of the pool's nodes on a host."""
    return spec.network.name or (f"{spec.name}-{host}" if host else spec.name)


def submit_port(spec: PoolSpec) -> int:
    """HTCondor's port on the access point."""
    return SUBMIT_PORT if not spec.network.name and master_address(spec) else CONDOR_PORT


def master_address(spec: PoolSpec) -> str:
    """Where other hosts reach the master; empty where the engine chooses its address."""
    if not spec.hosts:
        return ""
    return (spec.network.master if spec.network.name else spec.hosts[0].address) or ""


def place(spec: PoolSpec, role: Role, master: str, group: str = "", index: int = 1) -> Placement:
    """Where a node goes; `index` is its number in its group, `master` the master's name."""
    if not spec.hosts:
        return Placement(network=network_name(spec))
    head = spec.hosts[0]
    host = _executors_host(spec, group, index) if role == "execute" else head.name
    network = network_name(spec, host)
    at = master_address(spec)
    if spec.network.name:
        return Placement(
            host, network,
            address=at if role == "master" else "",
            names=() if role == "master" else ((master, at),),
        )  # fmt: skip
    if host != head.name:
        return Placement(host, network, names=((master, at),))
    return _at_head(spec, role, Placement(host, network)) if at else Placement(host, network)


def _at_head(spec: PoolSpec, role: Role, bare: Placement) -> Placement:
    """On the host whose ports are published."""
    private = ("-P", f"{spec.name}.{bare.host}")
    if role == "execute":
        return replace(bare, options=private)
    at = master_address(spec)
    ports = (CONDOR_PORT, ADMIT_PORT) if role == "master" else (SUBMIT_PORT,)
    forward = f"{f'[{at}]' if ':' in at else at}:{ports[0]}"
    return replace(bare, options=("--forward", forward, *private), publish=ports, publish_at=at)


def _executors_host(spec: PoolSpec, group: str, index: int) -> str:
    """Hosts take turns, each as often as it has executors of the group in the file; then anew."""
    shares = [[host.name] * host.execute.get(group, 0) for host in spec.hosts]
    turns = [name for name in chain.from_iterable(zip_longest(*shares)) if name]
    return turns[(index - 1) % len(turns)] if turns else spec.hosts[0].name
