"""Who may do what to which daemon: the one declaration of it.

A real pool is asked whether it is so (tests/pool/rogue/test_matrix.py), and docs/security.md shows
it as a table (tests/unit/test_rights.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

#: HTCondor's levels at which it decides; ALLOW is what it gives to everybody who proved a name.
LEVELS: Final = (
    "ALLOW", "READ", "WRITE", "DAEMON", "NEGOTIATOR", "ADMINISTRATOR", "CONFIG",
    "ADVERTISE_MASTER", "ADVERTISE_SCHEDD", "ADVERTISE_STARTD",
)  # fmt: skip
DAEMONS: Final = ("collector", "schedd", "startd")


@dataclass(frozen=True)
class Rights:
    """What somebody may do to each of the three daemons, beside ALLOW."""

    who: str
    collector: str = ""
    schedd: str = ""
    startd: str = ""
    known: bool = True
    """Whether the pool believes the name at all; else not even ALLOW is given."""

    def at(self, daemon: str) -> set[str]:
        """Every level that this one is given there."""
        return {"ALLOW", *getattr(self, daemon).split()} if self.known else set()


#: What a node may do to itself: its own certificate lies beside the daemon. An access point does
#: not submit.
_ITSELF: Final = (
    "READ WRITE DAEMON ADMINISTRATOR ADVERTISE_MASTER ADVERTISE_SCHEDD ADVERTISE_STARTD"
)

#: By a short name for each principal.
RIGHTS: Final = {
    "nobody": Rights("nobody: no certificate, every method offered", known=False),
    "foreign": Rights("the same node of another pool", known=False),
    "self-signed": Rights("a central manager that signed itself", known=False),
    "tampered": Rights("an execution point that changed the name in its certificate", known=False),
    "expired": Rights("an execution point whose certificate has ended", known=False),
    "unmapped": Rights("signed by the pool's CA, for what is no name", known=False),
    "revoked": Rights("a revoked user"),
    "reader": Rights("the reader", "READ", "READ", "READ"),
    "user": Rights("a user", "READ", "READ WRITE", "READ"),
    "other-user": Rights("another user", "READ", "READ WRITE", "READ"),
    "executor": Rights(
        "the execution point itself", "READ ADVERTISE_MASTER ADVERTISE_STARTD", "READ", _ITSELF
    ),
    "other-executor": Rights(
        "another execution point", "READ ADVERTISE_MASTER ADVERTISE_STARTD", "READ", "READ"
    ),
    "access-point": Rights(
        "the access point itself",
        "READ ADVERTISE_MASTER ADVERTISE_SCHEDD",
        _ITSELF.replace("WRITE ", ""),
        "READ",
    ),
    "other-access-point": Rights(
        "another access point", "READ ADVERTISE_MASTER ADVERTISE_SCHEDD", "READ", "READ"
    ),
    "master": Rights("the central manager", _ITSELF, "READ NEGOTIATOR", "READ"),
}


def markdown() -> str:
    """The table of docs/security.md."""
    rows = [["Who", *DAEMONS], ["---"] * 4]
    for each in RIGHTS.values():
        given = [", ".join(getattr(each, daemon).split()) or "–" for daemon in DAEMONS]
        rows.append([each.who, *given])
    every = ", ".join(level for level in LEVELS if level.startswith("ADVERTISE_"))
    return "".join(f"| {' | '.join(row)} |\n" for row in rows).replace(every, "ADVERTISE_*")
