"""`roost-node probe`: what this node knows of its place in the network, and how it reaches others.

Prints one JSON object, for whoever judges it (`roost doctor --network`). What it is asked stands on
its standard input, a JSON list of targets, `[]` for none:

    {"node": …, "name": …, "addresses": [told, others…], "mtu": 1500, "admits": false,
     "daemon": "<sinful>", "levels": ["READ", …]}

Only what a container without any capability may do: names by getaddrinfo, round trips by ICMP echo
where the kernel lets every group (net.ipv4.ping_group_range) and else by TCP, TCP connections, and
condor_ping with the node's own certificate.
"""

from __future__ import annotations

import errno
import json
import os
import re
import select
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

from roost_node import own_address, whereabouts
from roost_node.errors import BadInput
from roost_node.interfaces import interfaces
from roost_node.vocab import (
    ADMIT_PORT,
    CA_CERT,
    CONDOR_PORT,
    LOG_DIR,
    NODE_CERT,
    NODE_KEY,
    SPOOL_DIR,
    STATE_DIR,
    Role,
)

#: Where each role's daemon writes the address that it tells the collector.
_TOLD: Final[dict[Role, str]] = {
    "master": f"{LOG_DIR}/.collector_address",
    "submit": f"{SPOOL_DIR}/.schedd_address",
    "execute": f"{LOG_DIR}/.startd_address",
}
#: Seconds for one connection, and for condor_ping.
_CONNECT: Final = 3.0
_CONDOR: Final = 25.0
#: Echoes, and seconds for each.
_ECHOES: Final = 3
_ECHO: Final = 1.0
_LARGE_ECHO: Final = 0.5
#: Sizes that paths have, in bytes: what is left of 1500 by the usual tunnels, and the least.
_SIZES: Final = (8900, 1500, 1480, 1450, 1440, 1420, 1400, 1350, 1300, 1280, 1000, 576)
#: Linux' numbers that the socket module does not have.
_IP_MTU_DISCOVER: Final = 10
_IP_MTU: Final = 14
_IPV6_MTU_DISCOVER: Final = 23
_IPV6_MTU: Final = 24
#: Never in pieces, whatever the path was thought to take.
_PMTUDISC_PROBE: Final = 3
#: A state in /proc/net/tcp.
_LISTEN: Final = "0A"

Json = dict[str, Any]


def main(argv: Sequence[str]) -> int:
    """Print what is asked; raises BadInput for what is no list of targets."""
    from roost_node import start

    if argv:
        raise BadInput(f"{argv[0]!r} is one word too many")
    try:
        targets = json.loads(sys.stdin.read() or "[]")
    except ValueError:
        targets = None
    if not isinstance(targets, list) or not all(isinstance(each, dict) for each in targets):
        raise BadInput("probe reads a JSON list of targets from its standard input; [] is none")
    said = about(*start.who())
    with ThreadPoolExecutor(4) as workers:
        said["reached"] = list(workers.map(reach, targets))
    print(json.dumps(said))
    return 0


# --- this node ----------------------------------------------------------------------------------


def about(role: Role, node: str, masters: str) -> Json:
    """What this node says of itself."""
    told = _first_line(_TOLD[role])
    return {
        "role": role,
        "node": node,
        "masters": whereabouts.names(masters),
        "clock": time.time(),
        "told": told,
        "interfaces": [vars(each) for each in interfaces()],
        "listens": listens(where(told)[1]),
        "seen": "" if role == "master" else seen(masters),
        "certificate": certificate(Path(STATE_DIR)),
        "resolvers": re.findall(r"^nameserver\s+(\S+)", _text("/etc/resolv.conf"), re.MULTILINE),
    }


def where(sinful: str) -> tuple[str, int]:
    """Address and port in HTCondor's `<address:port?…>`; no address if there is none."""
    match = re.match(r"<\[?([0-9A-Fa-f.:]+)\]?:(\d+)[?>]", sinful)
    return (match[1], int(match[2])) if match else ("", CONDOR_PORT)


def certificate(state: Path) -> Json:
    """Whose certificate this is, by whom, and whom this node trusts; empty if there is none."""
    from roost_node import pki

    try:
        cert, ca = (state / NODE_CERT).read_bytes(), (state / CA_CERT).read_bytes()
        signer = pki.issuer(ca, cert)
        return {
            "name": pki.common_name(cert),
            "hosts": list(pki.host_names(cert)),
            "issuer": pki.full_fingerprint(signer) if signer else "",
            "trusts": [pki.full_fingerprint(each) for each in pki.authorities(ca)],
            "begins": (pki.issued(cert) - pki.CLOCK_SKEW).timestamp(),
            "ends": pki.expires(cert).timestamp(),
        }
    except (OSError, BadInput):
        return {}


def seen(masters: str) -> str:
    """As whom the first master sees this node; empty if it does not say."""
    try:
        return own_address.seen_as(whereabouts.addresses(whereabouts.names(masters)[0])[0])
    except (OSError, IndexError):
        return ""


def listens(port: int) -> bool:
    """Whether somebody waits for connections at this port here."""
    lines = [line.split() for table in ("/proc/net/tcp", "/proc/net/tcp6")
             for line in _text(table).splitlines()[1:]]  # fmt: skip
    return any(
        words[3] == _LISTEN and int(words[1].rpartition(":")[2], 16) == port for words in lines
    )


def _text(path: str) -> str:
    try:
        return Path(path).read_text(errors="replace")
    except OSError:
        return ""


def _first_line(path: str) -> str:
    return _text(path).partition("\n")[0].strip()


# --- others -------------------------------------------------------------------------------------


def reach(target: Mapping[str, Any]) -> Json:
    """How this node reaches `target`: its name, a round trip, its ports, its daemon."""
    address, *others = target["addresses"]
    port = where(target["daemon"])[1]
    daemon = target["daemon"]
    said: Json = {
        "node": target["node"],
        "address": address,
        "name": resolve(target["name"]),
        "ping": {},
        "condor_port": {"error": "by CCB"},
        "admit_port": connect(address, ADMIT_PORT) if target["admits"] else None,
        "others": {},
        "mtu": {},
        "levels": {},
    }
    # Whoever is called through CCB has an address that means something else here, or nothing.
    if "CCBID=" not in daemon:
        said |= _directly(address, port, others, target["mtu"])
    if daemon and ("CCBID=" in daemon or "ms" in said["condor_port"]):
        said["levels"] = condor_ping(daemon, target["levels"])
    return said


def _directly(address: str, port: int, others: Sequence[str], theirs: int) -> Json:
    found: Json = {
        "ping": ping(address),
        "condor_port": connect(address, port),
        "mtu": mtu(address, theirs),
    }
    if "ms" not in found["condor_port"]:
        found["others"] = {other: connect(other, port) for other in others}
    elif found["ping"].get("how") != "icmp":
        trips = [found["condor_port"]["ms"], *_round_trips(address, port)]
        found["ping"] = {"how": "tcp", "ms": trips}
    return found


def resolve(name: str) -> Json:
    """The addresses of a name, or why there are none; and how many seconds that took."""
    began = time.monotonic()
    try:
        said: Json = {"addresses": whereabouts.addresses(name)}
    except (OSError, UnicodeError) as error:
        said = {"error": getattr(error, "strerror", None) or str(error)}
    return said | {"name": name, "seconds": time.monotonic() - began}


def connect(address: str, port: int) -> Json:
    """Milliseconds to a TCP connection, and from where it went; or why there is none."""
    began = time.monotonic()
    try:
        with socket.create_connection((address, port), timeout=_CONNECT) as connection:
            return {"ms": _since(began), "from": connection.getsockname()[0]}
    except OSError as error:
        return {"error": _why(error)}


def _why(error: OSError) -> str:
    """One of four words that a judge knows, or the system's own."""
    if isinstance(error, ConnectionRefusedError):
        return "refused"
    if isinstance(error, TimeoutError):
        return "timeout"
    if error.errno in (errno.EHOSTUNREACH, errno.ENETUNREACH):
        return "unreachable"
    return (error.strerror or str(error)).lower()


def _since(began: float) -> float:
    return round((time.monotonic() - began) * 1000, 3)


def _round_trips(address: str, port: int) -> list[float]:
    tries = (connect(address, port) for _ in range(_ECHOES - 1))
    return [said["ms"] for said in tries if "ms" in said]


def ping(address: str) -> Json:
    """Round trips of ICMP echoes in milliseconds; no `how` where this node may not send them."""
    try:
        with _echo_socket(address) as icmp:
            found = [trip for _ in range(_ECHOES) if (trip := _echo(icmp, 56, _ECHO)) is not None]
    except OSError as error:
        return {"error": _why(error)}
    return {"how": "icmp", "ms": found} if found else {"error": "no answer"}


def _echo_socket(address: str) -> socket.socket:
    """A socket for echoes to `address` that any user may have; OSError where none may."""
    v6 = ":" in address
    family, kind = (
        (socket.AF_INET6, socket.IPPROTO_ICMPV6) if v6 else (socket.AF_INET, socket.IPPROTO_ICMP)
    )
    icmp = socket.socket(family, socket.SOCK_DGRAM, kind)
    try:
        icmp.connect((address, 0))
        icmp.setblocking(False)
    except OSError:
        icmp.close()
        raise
    return icmp


def _echo(icmp: socket.socket, size: int, within: float) -> float | None:
    """Milliseconds until an echo with `size` bytes of data was back; None if it was not."""
    data = os.urandom(8).ljust(size, b"r")
    ask = b"\x80" if icmp.family == socket.AF_INET6 else b"\x08"
    began = time.monotonic()
    # The kernel writes the checksum and the identifier.
    icmp.send(ask + bytes(7) + data)
    while (left := began + within - time.monotonic()) > 0:
        if select.select([icmp], [], [], left)[0] and icmp.recv(1 << 16)[8:] == data:
            return _since(began)
    return None


def mtu(address: str, theirs: int) -> Json:
    """What this node's interface takes at once on the way there, and the largest that comes back.

    `theirs` is what the other end's interface takes: with more than that it would not answer.
    """
    v6 = ":" in address
    level, ask, discover = (
        (socket.IPPROTO_IPV6, _IPV6_MTU, _IPV6_MTU_DISCOVER)
        if v6
        else (socket.IPPROTO_IP, _IP_MTU, _IP_MTU_DISCOVER)
    )
    try:
        with socket.socket(socket.AF_INET6 if v6 else socket.AF_INET, socket.SOCK_DGRAM) as udp:
            udp.connect((address, CONDOR_PORT))  # nothing is sent
            own = udp.getsockopt(level, ask)
        most = min(own, theirs or own)
        with _echo_socket(address) as icmp:
            icmp.setsockopt(level, discover, _PMTUDISC_PROBE)
            for size in dict.fromkeys((most, *(each for each in _SIZES if each < most))):
                if _passes(icmp, size - (48 if v6 else 28)):
                    return {"own": own, "tried": most, "passes": size}
            return {"own": own, "tried": most}
    except OSError:
        return {}


def _passes(icmp: socket.socket, data: int) -> bool:
    for _ in range(2):
        try:
            if _echo(icmp, data, _LARGE_ECHO) is not None:
                return True
        except OSError as error:
            if error.errno != errno.EMSGSIZE:  # anything else is the answer to an earlier echo
                continue
            return False
    return False


#: On an access point tools show the reader's certificate and local accounts; here it is the node.
_AS_NODE: Final = {
    "_CONDOR_TOOL.SEC_CLIENT_AUTHENTICATION_METHODS": "SSL",
    "_CONDOR_TOOL.AUTH_SSL_CLIENT_CERTFILE": f"{STATE_DIR}/{NODE_CERT}",
    "_CONDOR_TOOL.AUTH_SSL_CLIENT_KEYFILE": f"{STATE_DIR}/{NODE_KEY}",
}


def condor_ping(daemon: str, levels: Sequence[str]) -> Json:
    """Level → `ALLOW`, or why not in condor_ping's own words."""
    said = _tool(["condor_ping", "-addr", daemon, "-table", *levels])
    rows = {row[0]: row for line in said.splitlines() if len(row := line.split()) > 4}
    found = {level: "ALLOW" if rows.get(level, [""] * 5)[4] == "ALLOW" else "" for level in levels}
    for level in (level for level, answer in found.items() if not answer):
        found[level] = reason(_tool(["condor_ping", "-addr", daemon, "-verbose", level]))
        if not found[level].startswith("DENIED"):  # without authentication none fares better
            return {name: answer or found[level] for name, answer in found.items()}
    return found


def reason(text: str) -> str:
    """Why condor_ping failed, in a line: `DENIED as NAME`, or its own words."""
    if denied := re.search(r'"DENIED" from server for user (\S+)', text):
        return f"DENIED as {denied[1]}"
    lines = [re.sub(r"^[A-Z]+:\d+:", "", line.strip()) for line in text.splitlines()]
    return next((line for line in reversed(lines) if line), "it said nothing")


def _tool(argv: Sequence[str]) -> str:
    try:
        done = subprocess.run(
            argv, capture_output=True, text=True, timeout=_CONDOR, check=False, errors="replace",
            env=os.environ | _AS_NODE, stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return f"no answer within {_CONDOR:g} s"
    return f"{done.stdout}\n{done.stderr}"
