"""Where the masters are now: HTCondor looks a name up once and keeps the address (measured).

So the node looks it up: COLLECTOR_HOST is always an address, beside the name that the master's
certificate holds (which is what HTCondor's SSL method compares), and a master that came back at
another address is found again by writing it anew and telling condor_master to read it.

Of two masters a node lists those that answer, the one that has answered for longer first: tools ask
in this order, nobody waits for one that is gone, and one that has just come back is asked last,
because it does not know every node yet. A master lists itself first and always.

And where this node is itself: an engine may give it another address while it runs (`docker network
disconnect`, `connect`); HTCondor would go on to tell everybody the old one (measured).
"""

from __future__ import annotations

import os
import re
import socket
import threading
from contextlib import suppress
from types import MappingProxyType

from roost_node.interfaces import interfaces
from roost_node.vocab import CONDOR_PORT, LOG_DIR

TYPE_CHECKING = False  # supervisord's process imports this: typing would cost every node a MiB
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Final

#: Where condor_master writes the address that it tells everybody.
TOLD: Final = f"{LOG_DIR}/.master_address"
#: How often in a row an address must be found gone.
_LOOKS: Final = 2
CONFIG: Final = "/etc/condor/config.d/20-master.conf"
#: Seconds to reach a master: where nothing answers at all, its host is gone or cut off.
_REACH: Final = 3.0


def addresses(name: str) -> list[str]:
    """The addresses of a host, the preferred one first; a literal address is its own.

    Raises OSError (gaierror) when the name does not resolve.
    """
    found = socket.getaddrinfo(name, CONDOR_PORT, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def names(text: str) -> list[str]:
    """The masters in `master,master-2`: the first admits nodes."""
    return [name for name in text.strip().split(",") if name]


def collector_host(address: str, certificate_name: str) -> str:
    """COLLECTOR_HOST for a collector at `address` whose certificate holds `certificate_name`."""
    return f"<{_port(address)}?alias={certificate_name}>"


def _port(address: str) -> str:
    return f"{f'[{address}]' if ':' in address else address}:{CONDOR_PORT}"


def configuration(
    masters: Sequence[str],
    live: Mapping[str, str],
    certificates: Mapping[str, str],
    *,
    own: str = "",
    known: Mapping[str, str] = MappingProxyType({}),
) -> str:
    """HTCondor's configuration of where the masters are.

    `masters` are their names; `live` holds the addresses of those that are there, in the order in
    which they shall be asked; `certificates` the names in their certificates, where these differ.
    `own` is this node's name if it is one of two masters, `known` then where they were last.
    """
    hosts = {name: collector_host(live[name], certificates.get(name, name)) for name in live}
    text = (
        f"# Written by roost-node, again whenever {' or '.join(masters)} has another address.\n"
        f"COLLECTOR_HOST = {', '.join(hosts.values())}\n"
    )
    if len(masters) > 1:
        text += """\
# HTCondor's way to say: ask them in this order. (Stock: in any.)
HAD_USE_PRIMARY = True
# One that did not answer is asked again after so many seconds (stock: up to 3600); the list above
# is what keeps those away that are gone.
DEAD_COLLECTOR_MAX_AVOIDANCE_TIME = 5
# Until the list above is right, a tool that asks one which is gone turns to the other after this.
# Stock: 60.
QUERY_TIMEOUT = 10
"""
    if own:
        # Every master must have the same list: the first wins where two work at a time.
        listed = ", ".join(_port(known[name]) for name in sorted(known))
        text += f"HAD_LIST = {listed}\nREPLICATION_LIST = {listed}\n"
        text += "# What these have to say concerns nobody else; and two collectors that told each\n"
        text += "# other of themselves at the same moment would wait for each other, 20 s.\n"
        for daemon in ("COLLECTOR", "HAD", "REPLICATION"):
            text += f"{daemon}.COLLECTOR_HOST = {hosts[own]}\n"
    return text


def write(text: str, path: str = CONFIG) -> None:
    """Write the configuration, so that a reader sees the old one or the new one."""
    with open(f"{path}.new", "w") as file:
        file.write(text)
    os.replace(f"{path}.new", path)


def reaches(address: str, within: float = _REACH) -> bool:
    """Whether HTCondor's port is open there."""
    try:
        socket.create_connection((address, CONDOR_PORT), timeout=within).close()
    except OSError:
        return False
    return True


def here() -> list[str]:
    """This node's own addresses, but those that only itself can reach."""
    return [each.address for each in interfaces()]


def is_here(address: str) -> bool:
    """Whether `address` is one of this node's own."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as tried:
        try:
            tried.bind((address, 0))
        except OSError:
            return False
    return True


class Home:
    """Notices that this node's address is not the one any more that its daemons tell everybody."""

    def __init__(self, path: str = TOLD, *, forwarded: bool = False) -> None:
        """`forwarded` if what the daemons tell is no address of this node's anyway (--forward)."""
        self._path = path
        self._forwarded = forwarded
        self._gone = 0

    def moved(self) -> str:
        """The new address, once the told one was found gone, and another there, twice; else empty.

        Between the two a network may be half changed.
        """
        now = here() if not self._forwarded and self._told_is_gone() else []
        self._gone = self._gone + 1 if now else 0
        return now[0] if self._gone >= _LOOKS else ""

    def forget(self) -> None:
        """What was told counts no more: the daemons are about to say it anew."""
        self._gone = 0
        if os.path.exists(self._path):
            os.unlink(self._path)

    def _told_is_gone(self) -> bool:
        try:
            with open(self._path) as file:
                told = re.match(r"<\[?([0-9A-Fa-f.:]+)\]?:\d+[?>]", file.readline())
        except OSError:
            return False  # they have not started yet
        return told is not None and not is_here(told[1])


class Watch:
    """Looks the names up again, now and then, in a thread: a resolver may take its time."""

    def __init__(
        self,
        masters: Sequence[str],
        certificates: Mapping[str, str],
        found: Mapping[str, str],
        moved: Callable[[str], None],
        *,
        own: str = "",
        told: str = "",
        path: str = CONFIG,
    ) -> None:
        """`found` is where the masters were: name → address, in the order in which they are asked.

        `moved` is called from the thread, after the news is written, with what has changed. `own`
        is this node's name if it is a master; `told` a file that names the masters, should somebody
        write it (`roost-node masters`).
        """
        self._masters = list(masters)
        self._certificates = certificates
        self._live = dict(found)
        self._known = dict(found)
        """Where each was last."""
        self._moved = moved
        self._own = own
        self._told = told
        self._path = path
        self._thread: threading.Thread | None = None

    @property
    def current(self) -> dict[str, str]:
        """Each master's address, as far as is known."""
        return dict(self._known)

    def look(self) -> threading.Thread:
        """Look once, in the background; if the last look has not ended, do nothing new."""
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._look, daemon=True)
            self._thread.start()
        return self._thread

    def leave(self) -> list[str]:
        """Write that masters which do not answer are not there; their names.

        For a node that stops: what nobody hears is not said any more.
        """
        others = {name: at for name, at in self._live.items() if name != self._own}
        gone = [name for name, at in others.items() if not reaches(at, 1)]
        if gone:
            self._live = {name: at for name, at in self._live.items() if name not in gone}
            self._write()
        return gone

    def settle(self, address: str) -> None:
        """Write that this node, a master, is itself at another address now."""
        self._known[self._own] = self._live[self._own] = address
        self._write()

    def _look(self) -> None:
        self._masters = told(self._told) or self._masters
        known, resolved = self._whereabouts()
        live = self._answering(known, resolved)
        if known == self._known and list(live) == list(self._live):
            return
        news = change(self._live, live)
        self._known, self._live = known, live
        self._write()
        self._moved(news)

    def _whereabouts(self) -> tuple[dict[str, str], set[str]]:
        """Where each master is or, while its name does not resolve, was; those that resolve."""
        known, resolved = {}, set()
        for name in self._masters:
            at = self._known.get(name, "")
            if name != self._own:  # its own it was told, see `settle`
                with suppress(OSError):
                    found = addresses(name)
                    resolved.add(name)
                    at = at if at in found else found[0]
            if at:
                known[name] = at
        return known, resolved

    def _answering(self, known: dict[str, str], resolved: set[str]) -> dict[str, str]:
        """The masters to ask, in their order; never none where one is known."""
        if len(self._masters) == 1:
            return known
        there = {
            name: at
            for name, at in known.items()
            if name == self._own or (name in resolved and reaches(at))
        }
        return order(self._live, there or known)

    def _write(self) -> None:
        write(
            configuration(
                self._masters, self._live, self._certificates, own=self._own, known=self._known
            ),
            self._path,
        )


def order(before: Mapping[str, str], now: Mapping[str, str]) -> dict[str, str]:
    """`now`, those first that were there before, in their order."""
    stayed = [name for name in before if name in now]
    return {name: now[name] for name in [*stayed, *(name for name in now if name not in stayed)]}


def change(before: Mapping[str, str], now: Mapping[str, str]) -> str:
    """What is different, as the end of a sentence about the masters."""
    if len(before) == len(now) == 1 and list(before) == list(now):
        return f"the master has moved to {next(iter(now.values()))}"
    said = [f"{name} does not answer" for name in before if name not in now]
    said += [f"{name} is at {at}" for name, at in now.items() if before.get(name) != at]
    return f"masters: {', '.join(said)}"


def told(path: str) -> list[str]:
    """The masters that somebody named since this node was made; none if nobody did."""
    if not path:
        return []
    try:
        with open(path) as file:
            return names(file.read())
    except OSError:
        return []
