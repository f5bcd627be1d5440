"""This node's own addresses, asked of the kernel (netlink): all of them, IPv6 too.

supervisord's process imports this: standard library, and little of it.
"""

from __future__ import annotations

import os
import socket
import struct

TYPE_CHECKING = False  # typing itself would cost every container a MiB
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Final

#: Linux' numbers, from rtnetlink.h and if_addr.h.
_GET_ADDRESSES: Final = 22
_ADDRESS: Final = 20
_DONE: Final = 3
_REQUEST_DUMP: Final = 0x301
_IFA_ADDRESS: Final = 1
_IFA_LOCAL: Final = 2
_SCOPE_GLOBAL: Final = 0
#: An address that may not be used yet, or never.
_UNFIT: Final = 0x08 | 0x40  # DADFAILED, TENTATIVE


class Interface:
    """An address, and the interface that has it."""

    def __init__(self, name: str, address: str, mtu: int) -> None:
        self.name = name
        self.address = address
        self.mtu = mtu

    def __repr__(self) -> str:
        return f"{self.address} ({self.name})"


def interfaces() -> list[Interface]:
    """Every address by which others may reach this node: IPv4 first, in the kernel's order."""
    found = [each for each in _addresses() if each.name != "lo"]
    return sorted(found, key=lambda each: ":" in each.address)


def _addresses() -> Iterator[Interface]:
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as kernel:
        kernel.bind((0, 0))
        kernel.send(struct.pack("=IHHII8x", 24, _GET_ADDRESSES, _REQUEST_DUMP, 1, 0))
        while True:
            data = kernel.recv(1 << 16)
            while len(data) >= 16:
                length, kind = struct.unpack_from("=IH", data)
                if kind == _DONE or length < 16:
                    return
                if kind == _ADDRESS:
                    yield from _one(data[16:length])
                data = data[-(-length // 4) * 4 :]


def _one(message: bytes) -> Iterator[Interface]:
    family, _, flags, scope, index = struct.unpack_from("=BBBBI", message)
    if scope != _SCOPE_GLOBAL or flags & _UNFIT:
        return
    raw: dict[int, bytes] = {}
    at = 8
    while at + 4 <= len(message):
        length, kind = struct.unpack_from("=HH", message, at)
        if length < 4:
            break
        raw[kind] = message[at + 4 : at + length]
        at += -(-length // 4) * 4
    address = raw.get(_IFA_LOCAL) or raw.get(_IFA_ADDRESS)  # of a tunnel the second is the peer's
    if address:
        name = socket.if_indextoname(index)
        yield Interface(name, socket.inet_ntop(family, address), _mtu(name))


def _mtu(name: str) -> int:
    path = f"/sys/class/net/{name}/mtu"
    if not os.path.exists(path):
        return 0
    with open(path) as file:
        return int(file.read())
