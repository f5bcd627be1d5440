"""Which of its addresses a node tells others, where it has several: chosen by a rule, and said.

HTCondor by itself takes "the most public" one, whatever network the pool is on. Here it is the one
from which this node reaches its master; a master's own is the one by which it reaches everybody.
`NETWORK_INTERFACE` in the user's configuration overrules it.

supervisord's process imports this.
"""

from __future__ import annotations

import os
import re
import socket
import time

from roost_node import keeper
from roost_node.interfaces import interfaces

TYPE_CHECKING = False  # typing itself would cost every container a MiB
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Final

    from roost_node.interfaces import Interface

CONFIG: Final = "/etc/condor/config.d/25-address.conf"
#: Where the user's own configuration is, read after that.
_EXTRA: Final = "/etc/condor/config.d/90-extra.conf"
HOSTS: Final = "/etc/hosts"
#: Addresses that are nobody's: no packet goes there, only the kernel is asked for the way.
_ANYBODY: Final = ("192.0.2.1", "2001:db8::1")
_LOOK: Final = 0.5


def wait(say: Callable[[str], None]) -> list[Interface]:
    """This node's addresses, as soon as it has one: who wires a container may do so late."""
    said = False
    while not (found := interfaces()):
        if not said:
            said = True
            say("waiting for a network: this node has no address yet")
        time.sleep(_LOOK)
    return found


def source(toward: str = "") -> str:
    """The own address from which packets go to `toward`, or to anybody; empty without a way."""
    for there in (toward,) if toward else _ANYBODY:
        family = socket.AF_INET6 if ":" in there else socket.AF_INET
        with socket.socket(family, socket.SOCK_DGRAM) as udp:
            try:
                udp.connect((there, 9))
            except OSError:
                continue
            return str(udp.getsockname()[0])
    return ""


def choose(found: Sequence[Interface], source: str) -> Interface:
    """The one that others are told; `source` is the address that the kernel would take."""
    return next((each for each in found if each.address == source), found[0])


def configuration(found: Sequence[Interface], chosen: Interface) -> str:
    """NETWORK_INTERFACE, where HTCondor could take another one; else nothing to say.

    An interface's name stands for its IPv4 and its IPv6 address, where it has one of each.
    """
    several = len({each.name for each in found}) > 1
    if several or sum(":" not in each.address for each in found) > 1:
        alike = [each for each in found if each.name == chosen.name]
        one_of_each = len(alike) == len({":" in each.address for each in alike})
        return (
            "# Written by roost-node: of several addresses others are told this one.\n"
            f"NETWORK_INTERFACE = {chosen.name if several and one_of_each else chosen.address}\n"
        )
    return ""


def _private(chosen: Interface) -> str:
    """Where nodes of the same private network (-P) call this one, past --forward and CCB; so do
    its own daemons among themselves."""
    return f"if defined PRIVATE_NETWORK_NAME\nPRIVATE_NETWORK_INTERFACE = {chosen.address}\nendif\n"


def _ipv6_alone(found: Sequence[Interface]) -> str:
    """Else HTCondor takes 127.0.0.1 for a way out, and daemons of one node call each other there in
    vain (23.9.6: no job starts, root's tools get no answer)."""
    return "" if any(":" not in each.address for each in found) else "ENABLE_IPV4 = False\n"


def tell(toward: str, say: Callable[[str], None], *, config: str = CONFIG) -> str:
    """Choose, write it down for HTCondor, and say so if there was a choice; the address.

    `toward` is the master's address, empty on the master itself.
    """
    found = interfaces()
    if not found:
        return ""
    chosen = choose(found, source(toward))
    text = configuration(found, chosen)
    if text and (own := _overruled(_read(_EXTRA))):
        say(f"this node has several addresses, and NETWORK_INTERFACE = {own} chooses among them")
        text = ""
    elif text:
        why = f"from which it reaches the master at {toward}" if toward else "by its default route"
        say(
            f"this node has several addresses ({', '.join(map(repr, found))}) and tells others "
            f"{chosen.address}, {why}; NETWORK_INTERFACE in its configuration chooses another"
        )
    _write(config, text + _ipv6_alone(found) + _private(chosen))
    return chosen.address


def _overruled(extra: str) -> str:
    """The last NETWORK_INTERFACE of the user's own configuration; empty if it has none."""
    found = re.findall(r"^\s*NETWORK_INTERFACE\s*=\s*(\S+)", extra, re.MULTILINE | re.IGNORECASE)
    return found[-1] if found else ""


def _read(path: str) -> str:
    try:
        with open(path, errors="replace") as file:
            return file.read()
    except OSError:
        return ""


# --- behind NAT ---------------------------------------------------------------------------------

NAT_CONFIG: Final = "/etc/condor/config.d/26-nat.conf"


def follow_nat(
    role: str, master: str, say: Callable[[str], None], *, config: str = NAT_CONFIG
) -> None:
    """Ask the master at `master` as whom it sees this node; if as somebody else, act on it.

    An executor then stays connected with the master, which asks it to call whoever wants it
    (HTCondor's CCB): nobody need reach it. An access point must be reached, and says so.
    """
    seen = seen_as(master)
    text = ""
    if seen and seen not in [each.address for each in interfaces()]:
        if role == "execute":
            say(f"the master sees this node as {seen}, which it is not itself: it is behind NAT, "
                "and is called through the master (CCB)")  # fmt: skip
            text = (
                "# Written by roost-node: this node is behind NAT. It calls whoever asks the "
                "master for it.\nCCB_ADDRESS = $(COLLECTOR_HOST)\n"
            )
        else:
            say(f"the master sees this node as {seen}, which it is not itself: it is behind NAT; "
                "executors must reach it, see --forward")  # fmt: skip
    _write(config, text)


def seen_as(master: str) -> str:
    """The address from which the master at `master` is asked; empty if it does not say: it is
    older, or away."""
    try:
        answer = keeper.fetch(master, path="/v1/address").decode("ascii").strip()
    except (OSError, UnicodeDecodeError):
        return ""
    return answer if re.fullmatch(r"[0-9A-Fa-f.:]+", answer) else ""


def _write(path: str, text: str) -> None:
    with open(f"{path}.new", "w") as file:
        file.write(text)
    os.replace(f"{path}.new", path)


# --- its own name -------------------------------------------------------------------------------


def with_own_name(hosts: str, name: str, address: str) -> str:
    """/etc/hosts with an entry for `name`; the same if it has one."""
    for line in hosts.splitlines():
        words = line.partition("#")[0].split()
        if name in words[1:]:
            return hosts
    return f"{hosts.rstrip()}\n{address}\t{name}\n"


def know_own_name(name: str, address: str, say: Callable[[str], None], path: str = HOSTS) -> None:
    """Have this host find its own name in /etc/hosts, where no engine wrote it there.

    Each of HTCondor's daemons looks it up when it starts; with a resolver that does not answer it
    would stand still for over a minute (measured).
    """
    before = _read(path)
    after = with_own_name(before, name, address)
    if after == before:
        return
    try:
        with open(path, "w") as file:  # in place: engines mount this file
            file.write(after)
    except OSError as error:
        say(
            f"{name} is not in {path} and cannot be written there ({error.strerror}): if its "
            f"resolver does not know it, daemons start slowly; give it --add-host {name}:{address}"
        )
