"""How a pool's nodes reach each other, judged: what they found out about it in, sentences out.

A cause that one node has (its clock, its certificate, an address of its own, a NAT before it) is
said once, and what follows from it not again; what is left lies between two nodes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from roost.observe.doctor import CLOCK_TOLERANCE, Finding, Severity
from roost_node.probe import where
from roost_node.vocab import ADMIT_PORT, Role

#: What each role needs of each other's daemon, in HTCondor's words. (An executor's and an access
#: point's sessions for a job come with the match; that they know each other is what counts.)
LEVELS: Final[Mapping[tuple[Role, Role], tuple[str, ...]]] = {
    ("submit", "master"): ("READ", "ADVERTISE_SCHEDD", "ADVERTISE_MASTER"),
    ("execute", "master"): ("READ", "ADVERTISE_STARTD", "ADVERTISE_MASTER"),
    ("master", "submit"): ("READ", "NEGOTIATOR"),
    ("master", "execute"): ("READ",),
    ("submit", "execute"): ("READ",),
    ("execute", "submit"): ("READ",),
    ("master", "master"): ("READ", "ADVERTISE_MASTER"),
}
#: Jobs run without: the master only looks there when somebody administers the node.
_UNNEEDED: Final = frozenset({("master", "execute")})
#: A name that takes longer than this makes every daemon's start slow, in seconds.
_SLOW_NAME: Final = 2.0
#: Seconds by which clocks may differ before certificates and leases break, not just look wrong.
_CLOCK_BREAKS: Final = 300.0


@dataclass(frozen=True)
class Certificate:
    """What is in a node's certificate, and whom the node trusts."""

    name: str = ""
    hosts: tuple[str, ...] = ()
    issuer: str = ""
    """The fingerprint of the authority that signed it; empty if the node trusts that one not."""
    trusts: tuple[str, ...] = ()
    begins: float = 0
    ends: float = 0


@dataclass(frozen=True)
class Place:
    """What a node says of itself."""

    node: str
    role: Role
    masters: tuple[str, ...] = ()
    """What it calls its masters."""
    clock: float = 0
    """Unix time there, when this machine's was `clock - off`."""
    off: float = 0
    told: str = ""
    """The address that its daemon tells everybody, in HTCondor's form; empty if it tells none."""
    address: str = ""
    """The bare address in that."""
    addresses: Mapping[str, int] = field(default_factory=dict)
    """All its own addresses, and what the interface of each takes at once, in bytes."""
    listens: bool = True
    """Whether HTCondor's port is open there, seen from the node itself."""
    seen: str = ""
    """The address from which the master sees it call; empty if it does not say."""
    certificate: Certificate | None = None
    resolvers: tuple[str, ...] = ()

    @property
    def has_ccb(self) -> bool:
        """Whether others may reach it through a broker that it stays connected with."""
        return "CCBID=" in self.told


@dataclass(frozen=True)
class Pair:
    """How one node reached another."""

    source: str
    target: str
    roles: tuple[Role, Role]
    address: str = ""
    """Where it looked for it: the address that the other tells everybody."""
    name: str = ""
    """What it called it."""
    names: tuple[str, ...] = ()
    """The addresses of that name; empty if it has none there."""
    name_error: str = ""
    name_seconds: float = 0
    ping: float | None = None
    """The quickest round trip in milliseconds; None if nothing came back."""
    ping_by: str = ""
    """`icmp`, or `tcp` where no echo came back: the time to a connection."""
    port: str = ""
    """`open`, `refused`, `timeout`, `unreachable` or the system's own word: HTCondor's port."""
    admit: str = ""
    """The same of the port that admits nodes; empty if it was not asked."""
    elsewhere: tuple[str, ...] = ()
    """Its other addresses that have HTCondor's port open, where the told one has not."""
    mtu: int | None = None
    """The largest packet that came back; None if that could not be tried."""
    tried: int = 0
    """The largest that both ends' interfaces take."""
    clock: float = 0
    """Seconds that the other's clock is ahead of its own."""
    levels: Mapping[str, str] = field(default_factory=dict)
    """HTCondor's level → `ALLOW`, or why not."""

    @property
    def severity(self) -> Severity:
        """How bad it is if this does not work."""
        return "warning" if self.roles in _UNNEEDED else "error"

    @property
    def refused(self) -> str:
        """Why HTCondor did not let it do what it needs; empty if it does."""
        return next((why for why in self.levels.values() if why != "ALLOW"), "")

    @property
    def lossy(self) -> bool:
        """Whether large packets get lost between the two."""
        return self.ping is not None and bool(self.tried) and (self.mtu or 0) < self.tried


@dataclass(frozen=True)
class NetworkReport:
    """Every pair that was tried, and what is wrong."""

    pairs: tuple[Pair, ...]
    findings: tuple[Finding, ...]
    left_out: int = 0
    """Executors that were not tried, in a large pool."""


def judge(
    places: Mapping[str, Place], pairs: Sequence[Pair], silent: Mapping[str, str]
) -> tuple[Finding, ...]:
    """What is wrong, the gravest first. `silent` are the nodes that did not answer, and why."""
    findings = [
        Finding("error", f"it could not be asked: {why}", node, "`roost doctor` says more of it")
        for node, why in silent.items()
    ]
    master = next((place for place in places.values() if place.role == "master"), None)
    explained = set()
    for place in places.values():
        own = [*_clock(place, master), *_certificate(place, master)]
        own += [*_address(place, pairs), *_interface(place, master)]
        findings += own
        if any(finding.severity == "error" for finding in own):
            explained.add(place.node)
    findings += _grouped(_names(places, pairs))
    findings += _grouped(_between(places, pairs, explained))
    rank: dict[Severity, int] = {"error": 0, "warning": 1, "note": 2}
    return tuple(sorted(dict.fromkeys(findings), key=lambda finding: rank[finding.severity]))


# --- what one node has --------------------------------------------------------------------------


def _clock(place: Place, master: Place | None) -> Iterator[Finding]:
    if master is None or place is master:
        return
    off = place.off - master.off
    if abs(off) > CLOCK_TOLERANCE:
        way = "ahead of" if off > 0 else "behind"
        yield Finding(
            "error" if abs(off) > _CLOCK_BREAKS else "warning",
            f"its clock is {abs(off):.0f} s {way} the master's: certificates look as if they had "
            "not begun or had ended, and leases end too early or late",
            place.node, "synchronise the hosts' clocks (chrony, systemd-timesyncd)",
        )  # fmt: skip


def _certificate(place: Place, master: Place | None) -> Iterator[Finding]:
    own = place.certificate
    if own is None:
        yield Finding(
            "error", "it has no certificate that can be read", place.node,
            "make it anew: remove its container, and `roost up`",
        )  # fmt: skip
        return
    theirs = master.certificate if master else None
    if theirs and not set(own.trusts) & set(theirs.trusts):
        yield Finding(
            "error",
            f"it has another pool's CA ({_short(own.trusts)}) than the master "
            f"({_short(theirs.trusts)}), so neither believes the other",
            place.node,
            "empty its /var/lib/roost and have it join this pool: remove its container and "
            "`roost up`, or start it with a line of `roost join`",
        )  # fmt: skip
    elif not own.issuer:
        yield Finding(
            "error", "its certificate was not signed by the CA that it has itself", place.node,
            "empty its /var/lib/roost and have it join anew",
        )  # fmt: skip
    if place.node not in own.hosts:
        yield Finding(
            "error",
            f"its certificate is for {' and '.join(own.hosts) or 'no host'}, and its name is "
            f"{place.node}: whoever calls it takes it for somebody else and hangs up",
            place.node,
            "give its container the name in the certificate (--hostname), or remove the "
            "certificate and have it join under its own",
        )  # fmt: skip
    if not own.begins <= place.clock <= own.ends and not any(_clock(place, master)):
        when = "has ended" if place.clock > own.ends else "has not begun"
        yield Finding(
            "error", f"its certificate {when} by its own clock", place.node,
            "set the clock right; if that is right, remove its container and `roost up`",
        )  # fmt: skip


def _address(place: Place, pairs: Sequence[Pair]) -> Iterator[Finding]:
    """Whether others look for it where it can be found."""
    to = [pair for pair in pairs if pair.target == place.node]
    if not place.told:
        yield Finding(
            "error", "its daemon has told nobody an address: it has not started, or ended",
            place.node, f"see `roost logs {place.node}`",
        )  # fmt: skip
        return
    failed = [pair for pair in to if pair.port != "open" or pair.refused]
    if place.has_ccb or not failed:
        return
    elsewhere = sorted({address for pair in failed for address in pair.elsewhere})
    if elsewhere:
        yield Finding(
            "error",
            f"it has several addresses and tells {place.address}, where {_listed(failed)} cannot "
            f"reach it; they reach it at {' or '.join(elsewhere)}",
            place.node,
            f"set NETWORK_INTERFACE = {elsewhere[0]} there (-c, or `config:`), or take it off the "
            "network that the others are not on",
        )  # fmt: skip
    elif place.seen and place.seen not in place.addresses:
        # Its address may even be another's here: private ones are given out again and again.
        yield Finding(
            "error",
            f"it is behind NAT (it is at {place.address}, and the master sees it at {place.seen}) "
            f"and has no CCB, so {_listed(failed)} cannot call it",
            place.node, "start it anew: it notices that, and has itself called through the master; "
            "or give it -C MASTER:9618",
        )  # fmt: skip


def _interface(place: Place, master: Place | None) -> Iterator[Finding]:
    if master is None or place is master:
        return
    own, theirs = place.addresses.get(place.address), master.addresses.get(master.address)
    if own and theirs and own != theirs:
        yield Finding(
            "warning",
            f"its network interface takes {own} bytes at a time (MTU), the master's {theirs}: TCP "
            "adapts to it, but only if both ends know",
            place.node, "give both the MTU that the whole path takes",
        )  # fmt: skip


# --- what lies between two ----------------------------------------------------------------------


class _Cause(NamedTuple):
    """A finding without its place."""

    severity: Severity
    what: str
    advice: str


def _grouped(shown: Iterable[tuple[Pair, _Cause]]) -> Iterator[Finding]:
    """One finding for all sources that see the same at the same target."""
    groups: dict[tuple[_Cause, str], list[str]] = {}
    for pair, cause in shown:
        groups.setdefault((cause, pair.target), []).append(pair.source)
    for (cause, target), sources in groups.items():
        yield Finding(cause.severity, cause.what, f"{', '.join(sources)} → {target}", cause.advice)


def _names(places: Mapping[str, Place], pairs: Sequence[Pair]) -> Iterator[tuple[Pair, _Cause]]:
    for pair in pairs:
        for cause in _name(pair, places[pair.source], places[pair.target]):
            yield pair, cause


def _name(pair: Pair, source: Place, to: Place) -> Iterator[_Cause]:
    called = pair.name in source.masters
    # Nodes learn each other's addresses from the collector; they look up the master's name alone.
    severity: Severity = "error" if called and source.role != "master" else "warning"
    resolvers = f"resolvers: {', '.join(source.resolvers) or 'none'}"
    if not pair.names and called:
        yield _Cause(
            severity,
            f"the name {pair.name} does not resolve ({pair.name_error}; {resolvers})",
            "repair DNS there, or give the master by its address or in /etc/hosts "
            "(docker run --add-host)",
        )
    right = {*to.addresses, to.address}
    wrong = " and ".join(address for address in pair.names if address not in right)
    if wrong and not right & set(pair.names):
        yield _Cause(
            severity,
            f"the name {pair.name} is {wrong} there, which is not that node: it is at "
            f"{' and '.join(to.addresses)}",
            "correct the entry in DNS or in /etc/hosts there",
        )
    elif wrong and called:
        yield _Cause(
            "warning",
            f"the name {pair.name} has several addresses there, and {wrong} is not that node's",
            "leave in DNS only the address that the others reach",
        )
    if called and pair.name_seconds > _SLOW_NAME:
        yield _Cause(
            "warning",
            f"it took {pair.name_seconds:.0f} s to look up {pair.name}: a resolver does not "
            f"answer ({resolvers})",
            "take the dead one out of /etc/resolv.conf (docker run --dns)",
        )


def _between(
    places: Mapping[str, Place], pairs: Sequence[Pair], explained: set[str]
) -> Iterator[tuple[Pair, _Cause]]:
    for pair in pairs:
        if {pair.source, pair.target} & explained:
            continue
        to = places[pair.target]
        if pair.port != "open" and not to.has_ccb:
            yield pair, _closed(pair, to)
        elif pair.lossy:
            yield pair, _lossy(pair)
        elif pair.refused:
            yield pair, _denied(pair)
        if pair.admit not in ("", "open"):
            yield pair, _no_admission(pair)


def _no_admission(pair: Pair) -> _Cause:
    how = {"timeout": "dropped by a firewall", "refused": "closed"}.get(pair.admit, pair.admit)
    return _Cause(
        "warning",
        f"port {ADMIT_PORT} of the master is {how}: nodes can neither join nor renew their "
        "certificates",
        f"let TCP {ADMIT_PORT} pass to the master",
    )


def _closed(pair: Pair, to: Place) -> _Cause:
    """Why HTCondor's port cannot be reached at a node that has one address and runs."""
    port = where(to.told)[1]
    at = f"TCP {port} of {pair.address}"
    let = f"let TCP {port} pass between the nodes"
    if not to.listens:
        what = f"nothing listens on {at}: HTCondor does not run there"
        let = f"see `roost logs {to.node}`"
    elif pair.port == "refused":
        what = f"{at} is refused, though HTCondor listens there: a firewall rejects it"
    elif pair.port == "timeout" and pair.ping is not None:
        what = f"{at} does not answer, though the host does: a firewall drops it"
    elif pair.port == "unreachable":
        what = f"there is no route to {pair.address}"
        let = "put both on one network, or have routers know the way in both directions"
    else:
        what = (
            f"nothing comes back from {pair.address}: a firewall drops all, or a route is missing"
        )
        let += ", and look at the routes of both"
    return _Cause(pair.severity, what, let)


def _lossy(pair: Pair) -> _Cause:
    takes = f"none larger than {pair.mtu} bytes" if pair.mtu else "no large one"
    return _Cause(
        "error" if pair.refused else "warning",
        f"packets of {pair.tried} bytes get lost on the way, though both ends' interfaces take "
        f"them (MTU); {takes} came through",
        "lower the MTU of the pool's network to what the path takes, or let ICMP "
        "`fragmentation needed` pass",
    )


def _denied(pair: Pair) -> _Cause:
    levels = ", ".join(level for level, why in pair.levels.items() if why != "ALLOW")
    if not pair.refused.startswith("DENIED"):
        what = f"HTCondor does not let it {levels}: {pair.refused}"
        return _Cause(pair.severity, what, f"see `roost logs {pair.target}`")
    return _Cause(
        pair.severity,
        f"HTCondor knows it there as {pair.refused.removeprefix('DENIED as ')}, and does not let "
        f"it {levels}",
        "see `roost credential ls` for whether it was revoked, and the ALLOW_ and DENY_ settings "
        "in `config:`",
    )


def _listed(pairs: Iterable[Pair]) -> str:
    return " and ".join(pair.source for pair in pairs)


def _short(fingerprints: Iterable[str]) -> str:
    return ", ".join(each[:12] for each in fingerprints) or "none"


# --- reading ------------------------------------------------------------------------------------


def place(said: Mapping[str, Any], off: float, address: str) -> Place:
    """A node's own words. `address` is the bare one in what it tells."""
    own = said["certificate"]
    certificate = own and Certificate(
        name=own["name"],
        hosts=tuple(own["hosts"]),
        issuer=own["issuer"],
        trusts=tuple(own["trusts"]),
        begins=own["begins"],
        ends=own["ends"],
    )
    return Place(
        node=said["node"],
        role=said["role"],
        masters=tuple(said["masters"]),
        clock=said["clock"],
        off=off,
        told=said["told"],
        address=address,
        addresses={each["address"]: each["mtu"] for each in said["interfaces"]},
        listens=said["listens"],
        seen=said["seen"],
        certificate=certificate or None,
        resolvers=tuple(said["resolvers"]),
    )


def pair(source: Place, target: Place, said: Mapping[str, Any]) -> Pair:
    """How `source` says that it reached `target`."""
    name, mtu = said["name"], said["mtu"]
    return Pair(
        source=source.node,
        target=target.node,
        roles=(source.role, target.role),
        address=said["address"],
        name=name["name"],
        names=tuple(name.get("addresses", ())),
        name_error=name.get("error", ""),
        name_seconds=name["seconds"],
        ping=min(said["ping"].get("ms", ()), default=None),
        ping_by=said["ping"].get("how", ""),
        port=_word(said["condor_port"]),
        admit=_word(said["admit_port"]),
        elsewhere=tuple(at for at, found in said["others"].items() if "ms" in found),
        mtu=mtu.get("passes"),
        tried=mtu.get("tried", 0),
        clock=round(target.off - source.off, 3),
        levels=said["levels"],
    )


def _word(said: Mapping[str, Any] | None) -> str:
    if said is None:
        return ""
    return "open" if "ms" in said else str(said["error"])
