"""What the master announces: who is revoked, and which authorities count. Values in, values out.

Signed by the pool's authority, so that it may travel in the clear and every node can fetch it
cheaply; its number only grows, so that an old one cannot be passed off as new.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any, Final

from roost_node import pki
from roost_node.errors import BadInput
from roost_node.vocab import IDENTITY_PREFIX, Role, pool_domain

#: Every level at which HTCondor decides what somebody may do.
_LEVELS: Final = (
    "READ", "WRITE", "DAEMON", "NEGOTIATOR", "ADMINISTRATOR", "CONFIG", "CLIENT",
    "ADVERTISE_MASTER", "ADVERTISE_SCHEDD", "ADVERTISE_STARTD",
)  # fmt: skip


@dataclass(frozen=True)
class Notice:
    """One announcement; each replaces the one before."""

    number: int = 0
    revoked: tuple[str, ...] = ()
    """Identities: CNs of certificates."""
    ca: str = ""
    """The certificates of all authorities that count, the one that signs first; PEM."""


def dump(notice: Notice, ca_key: bytes) -> bytes:
    """A notice as it travels."""
    body = json.dumps(asdict(notice))
    return json.dumps({"notice": body, "signature": pki.signed(ca_key, body.encode())}).encode()


def read(raw: bytes, ca_certs: bytes) -> Notice:
    """A notice that one of these authorities signed. Raises BadInput."""
    body, signature = _parts(raw)
    if not any(pki.vouches(ca, body.encode(), signature) for ca in pki.authorities(ca_certs)):
        raise BadInput("the master's notice is not signed by the pool's authority")
    return _notice(body)


def follows(new: Notice, before: Notice, pool: str) -> None:
    """Raises BadInput unless one notice may come after another in this pool."""
    if new.number < before.number:
        raise BadInput("the master's notice is older than the one before")
    if pki.pool_of(new.ca.encode()) != pool:
        raise BadInput("the master's notice names another pool's authority")


def own(raw: bytes) -> Notice:
    """A notice that was verified before it was kept. Raises BadInput if the file is damaged."""
    return _notice(_parts(raw)[0])


def denials(revoked: tuple[str, ...], pool: str, role: Role) -> str:
    """HTCondor's configuration against those who are revoked."""
    if not revoked:
        return "# Nobody is revoked.\n"
    who = " ".join(f"{name}@{pool_domain(pool)}" for name in revoked)
    lines = ["# Written by roost-node: who is revoked may do nothing, in sessions that live, too."]
    lines += [f"DENY_{level} = $(DENY_{level}) {who}" for level in _LEVELS]
    machines = machines_of(revoked)
    if role == "submit" and machines:
        lines += [
            "# Claims on their slots are given up: no job starts in one again.",
            f'START_VANILLA_UNIVERSE = ($(START_VANILLA_UNIVERSE:True)) && '
            f'!stringListIMember(SLOT.Machine, "{",".join(machines)}")',
        ]  # fmt: skip
    return "\n".join([*lines, ""])


def machines_of(revoked: tuple[str, ...]) -> tuple[str, ...]:
    """The host names of the execution points among them."""
    prefix = IDENTITY_PREFIX["execute"]
    return tuple(name.removeprefix(prefix) for name in revoked if name.startswith(prefix))


def _parts(raw: bytes) -> tuple[str, str]:
    try:
        said: Any = json.loads(raw)
        body, signature = said["notice"], said["signature"]
    except (ValueError, KeyError, TypeError, RecursionError):
        body, signature = None, None
    if not isinstance(body, str) or not isinstance(signature, str):
        raise BadInput("the master's notice is damaged")
    return body, signature


def _notice(body: str) -> Notice:
    try:
        said: Any = json.loads(body)
        return Notice(int(said["number"]), tuple(map(str, said["revoked"])), str(said["ca"]))
    except (ValueError, KeyError, TypeError, RecursionError):
        raise BadInput("the master's notice is damaged") from None
