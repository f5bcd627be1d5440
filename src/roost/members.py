"""Who belongs to a pool: the line for another host, and the nodes that wait to be let in.

All of it is decided in the master (roost_node/register.py); here it is asked, by commands in its
container.
"""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Final

from roost import inside
from roost._run import Completed
from roost.engines.base import Engine
from roost.errors import BadInput, PoolNotReady, RoostError
from roost.plan import ObservedNode
from roost.security import PoolKeys, Secret
from roost_node import pki, tokens
from roost_node.vocab import (
    ADMIT_PORT,
    CONDOR_PORT,
    IDENTITY_PREFIX,
    ROLE_FLAG,
    ROLES,
    Role,
    identity,
    second_master,
)

#: Whoever must know at once who is revoked.
_DENYING: Final[tuple[Role, ...]] = ("master", "submit")


@dataclass(frozen=True)
class Invitation:
    """What somebody types on another host so that a node there joins the pool."""

    role: Role
    address: str
    """Where that host must reach the master."""
    ports: tuple[int, ...]
    image: str
    node: str
    """The new node's host name; empty where the engine there is to choose one."""
    uses: int
    expires: str
    line: str
    """Holds the token: whoever reads it may join."""

    def __repr__(self) -> str:
        return f"Invitation({self.role} at {self.address})"


@dataclass(frozen=True)
class Waiting:
    """A node that asked to be admitted."""

    id: str
    name: str
    role: str
    address: str
    fingerprint: str
    """Of its key: to be compared with the one in the node's own log."""
    waits: int
    """In seconds."""
    note: str = ""


@dataclass(frozen=True)
class Credential:
    """A certificate, by whom it is for; times are Unix time."""

    name: str
    """The identity: `exec-` and the host name for an executor, a user's name for a user."""
    role: str
    id: str = ""
    """Of the certificate; empty if it was not issued here."""
    issued: float | None = None
    expires: float | None = None
    seen: float | None = None
    """When the collector heard of it last."""
    revoked: float | None = None


class Members:
    """Asks the master of a pool about those who come and go."""

    def __init__(
        self,
        engine: Engine,
        pool: str,
        nodes: Sequence[ObservedNode],
        keys: PoolKeys | None = None,
        *,
        address: str = "",
    ) -> None:
        """`address` is where other hosts reach the master; its own on the network if empty."""
        self._address = address
        self._keys = keys or PoolKeys(pool)
        self._engine = engine
        self._pool = pool
        self._nodes = nodes

    def invite(
        self,
        role: str,
        *,
        expires: str = "1h",
        uses: int = 1,
        address: str = "",
    ) -> Invitation:
        """A line for another host that admits `uses` nodes as `role` within `expires`.

        Raises BadInput for a role, a time or a number that cannot be.
        """
        master = self._master()
        chosen = next((each for each in tokens.TOKEN_ROLES if each == role), None)
        if chosen is None:
            raise BadInput(
                f"a node cannot join as {role!r}", advice=f"it is {' or '.join(tokens.TOKEN_ROLES)}"
            )
        if uses < 1:
            raise BadInput(f"{uses} uses admit nobody", advice="give 1 or more")
        where = address or self._address or master.address
        if not where:
            raise PoolNotReady(
                f"{master.name} has no address on the pool's network",
                advice="give --address, under which the other host reaches it",
            )
        said = self._ask("join-token", chosen, "--expires", expires, "--uses", str(uses)).text
        token = Secret(said.strip().encode())
        node = "" if uses > 1 else _node(self._pool, chosen, tokens.parse(said).id)
        line = command(chosen, where, master.image, node, token)
        until = tokens.stamp(tokens.parse(said).expires)
        return Invitation(
            chosen, where, (CONDOR_PORT, ADMIT_PORT), master.image, node, uses, until, line
        )

    def waiting(self) -> tuple[Waiting, ...]:
        """The nodes that wait to be admitted, the longest first."""
        return tuple(Waiting(**row) for row in self._json("approve", "--list", "--json"))

    def approve(self, ids: Sequence[str]) -> tuple[str, ...]:
        """Admit these, by their ids; all or, with BadInput, none. What was done, a line each."""
        return tuple(self._ask("approve", "--", *ids).text.splitlines())

    def refuse(self, ids: Sequence[str]) -> tuple[str, ...]:
        """Turn these away, by their ids; all or, with BadInput, none."""
        return tuple(self._ask("refuse", "--", *ids).text.splitlines())

    def open_network(self, cidr: str, period: str) -> tuple[str, ...]:
        """Admit whoever asks from a network, for so long."""
        asked = ("approve", f"--network={cidr}", f"--for={period}")
        return tuple(self._ask(*asked).text.splitlines())

    # --- who has a certificate --------------------------------------------------------------

    def credentials(self) -> tuple[Credential, ...]:
        """Everybody with a certificate, or known to the collector, by name."""
        found = {each.name: Credential(each.name, each.role, each.id, each.issued, each.expires)
                 for each in self._keys.issued()}  # fmt: skip
        for row in self._json("credentials"):
            mine = found.get(row["name"], Credential(row["name"], row["role"]))
            if row["id"] and (row["issued"] or 0) >= (mine.issued or 0):
                mine = Credential(row["name"], row["role"], row["id"], row["issued"],
                                  row["expires"])  # fmt: skip
            found[mine.name] = replace(
                mine, seen=row["seen"], revoked=row["revoked"], role=mine.role or _role(mine.name)
            )
        return tuple(found[name] for name in sorted(found))

    def revoke(self, names: Sequence[str], *, undo: bool = False) -> tuple[str, ...]:
        """Refuse these everywhere within a minute, or (`undo`) no more; their identities.

        Each is a certificate's id, a node or a user. All or, with BadInput, none.
        """
        known = self.credentials()
        found = tuple(dict.fromkeys(_meant(name, known, self._pool) for name in names))
        if undo:
            lost = [each for each in found
                    if not any(one.name == each and one.revoked for one in known)]  # fmt: skip
            if lost:
                raise BadInput(f"{lost[0]} is not revoked")
            self._ask("revoke", "--undo", "--", *found)
            self._keys.revoke(found, undo=True)
            self._hasten(_DENYING)
        else:
            self.refuse_identities(found)
        return found

    def refuse_identities(self, names: Sequence[str]) -> None:
        """Revoke these, known or not; what is revoked already stays so."""
        # First here: nothing is issued for them any more, whatever happens next.
        self._keys.revoke(names)
        self._ask("revoke", "--", *names)
        self._hasten(_DENYING)

    def rotate(self, say: Callable[[str], None], *, within: float = 300.0) -> None:
        """Replace the pool's CA and every certificate, while jobs run.

        It may be asked for again after an interruption: it goes on where it was. Raises
        PoolNotReady when a node does not follow within so many seconds.
        """
        if "master" not in self._engine.delivers:
            raise BadInput(
                f"the authority of a pool on {self._engine.name} is in its master, and is not "
                "replaced from here",
                advice="`roost credential revoke` refuses a node or a user at once",
            )
        gone = self._keys.revoked()
        still = [
            node.name
            for node in self._nodes
            if node.state != "running" and identity(node.role, node.name) not in gone
        ]
        if still:
            raise PoolNotReady(
                f"{still[0]} does not run, and would be left behind",
                advice="`roost up` starts it again; then rotate",
            )
        key, cert = self._keys.next_authority()
        mine = pki.full_fingerprint(cert)
        status = self._rotation("status")
        if mine not in status["ca"]:
            say("announcing the new CA")
            status = self._rotation("begin", "--stdin", stdin=key.reveal() + b"\n" + cert)
        if status["stage"] == "announced":
            say("waiting until every node trusts it")
            self._follow(say, within)
            say("issuing every certificate anew")
            status = self._rotation("switch")
        self._keys.switch_authority()
        if status["stage"] == "switched":
            self._follow(say, within)
            say("dropping the old CA")
            self._rotation("finish")
            self._hasten(ROLES)
        self._keys.finish_authority()

    def _rotation(self, *argv: str, stdin: bytes = b"") -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self._ask("rotate", *argv, stdin=stdin).text)
        return found

    def _follow(self, say: Callable[[str], None], within: float) -> None:
        """Return once every node has taken up what the master announced."""
        until = time.monotonic() + within
        self._hasten(ROLES)
        said = None
        first = self._master().name
        own = {identity(node.role, node.name) for node in self._nodes if node.name != first}
        while True:
            waiting = self._rotation("status", *sorted(own))["waiting"]
            if not waiting:
                return
            if len(waiting) != said:
                said = len(waiting)
                say(f"waiting for {said} of the nodes, {waiting[0]} among them")
            if time.monotonic() > until:
                raise PoolNotReady(
                    f"{waiting[0]} has not followed in {within:g} s",
                    advice="look at its log; `roost credential rotate` goes on from here",
                )
            time.sleep(1)

    def _hasten(self, roles: Collection[str]) -> None:
        """Let these nodes look at once instead of within 20 s; it is no matter if one cannot."""
        there = [node for node in self._nodes if node.role in roles and node.state == "running"]

        def look(node: ObservedNode) -> None:
            with suppress(RoostError):
                self._engine.exec(
                    node.ref, ["roost-node", "renew", "--look"], timeout=inside.PATIENCE
                )

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(look, there))

    # --- asking -----------------------------------------------------------------------------

    def _master(self) -> ObservedNode:
        for node in self._nodes:
            if node.role == "master" and node.name != second_master(self._pool):
                if node.state == "running":
                    return node
                raise PoolNotReady(
                    f"{node.name} does not run: it is {node.state}",
                    advice="`roost up` starts it again, `roost logs master` says why it ended",
                )
        raise PoolNotReady(f"the pool {self._pool!r} has no master", advice="run `roost up`")

    def _json(self, *argv: str) -> Any:
        return json.loads(self._ask(*argv).text)

    def _ask(self, *argv: str, stdin: bytes = b"") -> Completed:
        return inside.ask(self._engine, self._master().ref, *argv, stdin=stdin)


def _role(name: str) -> str:
    """The role that an identity says."""
    return next((role for role in ROLES if name.startswith(IDENTITY_PREFIX[role])), "user")


def _meant(who: str, known: Sequence[Credential], pool: str) -> str:
    """The identity that a certificate's id, a node's or a user's name means. Raises BadInput."""
    matching = [
        each.name
        for each in known
        for node in [each.name.removeprefix(IDENTITY_PREFIX.get(each.role, ""))]  # type: ignore[call-overload]
        if who and who in (each.name, each.id, node, node.removeprefix(f"{pool}-"))
    ]
    if len(matching) == 1:
        return matching[0]
    if matching:
        raise BadInput(f"{who!r} means {' and '.join(matching)}", advice="say which")
    raise BadInput(
        f"nobody in the pool {pool!r} is {who!a}",
        advice="`roost credential ls` shows names and ids",
    )


def _node(pool: str, role: str, id: str) -> str:
    """A host name for a new node: not one of those that roost keeps for its own."""
    name = f"{role}-{id[:6]}"
    return f"joined-{name}" if name.startswith(f"{pool}-") else name


def command(role: Role, address: str, image: str, node: str, token: Secret) -> str:
    """One line of shell that starts a node with a token: in a file, and in no process's arguments.

    `printf` is the shell's own: no process has the token among its arguments.
    """
    file = f"{node or role}.token"
    named = f"--name {node} --hostname {node} " if node else ""
    text = shlex.quote(token.reveal().decode())
    return (
        f"(umask 077; printf '%s\\n' {text} > {file}) &&"
        f' docker run -d {named}--restart on-failure:3 -v "$PWD/{file}:/run/token:ro"'
        f" {image} {ROLE_FLAG[role]} {address} -S /run/token"
    )
