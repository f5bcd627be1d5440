"""Join tokens: what lets a node in at once, instead of after an administrator's word.

A token names its pool, pins the pool's CA by its SHA-256, is for one role, and dies soon. It is
shown once; the master keeps a hash of its secret, so nobody reads a token back from there.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import secrets
import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Final, cast

from roost_node import files
from roost_node.errors import BadInput
from roost_node.vocab import ROLES, Role

PREFIX: Final = "roost-join.v1."
#: Roles that a token may be for: a pool's master is not admitted by itself.
TOKEN_ROLES: Final[tuple[Role, ...]] = ("submit", "execute")
_SECRET_BYTES: Final = 32


@dataclass(frozen=True)
class Token:
    """A join token; `text` is the form that people carry."""

    pool: str
    role: Role
    expires: int
    """Unix time."""
    id: str
    ca: str
    """Full fingerprint of the pool's CA certificate."""
    secret: bytes = field(repr=False)

    @property
    def text(self) -> str:
        said = {"p": self.pool, "r": self.role, "e": self.expires, "i": self.id, "c": self.ca}
        return f"{PREFIX}{_encode(json.dumps(said).encode())}.{_encode(self.secret)}"

    def record(self, uses: int = 1, *, own: bool = False) -> Record:
        """What the master keeps of it."""
        return Record(self.id, self.role, self.expires, _hash(self.secret), uses, own=own)


@dataclass(frozen=True)
class Record:
    """What the master keeps of a token: nothing from which the token could be made again."""

    id: str
    role: Role
    expires: int
    hash: str
    uses: int
    """How many more keys it admits."""
    used_by: tuple[str, ...] = ()
    """The requests that it has admitted: each of them may ask again."""
    own: bool = False
    """Whoever has it may be any node of the pool's own, also one that another key was before."""

    def matches(self, token: Token) -> bool:
        return hmac.compare_digest(self.hash, _hash(token.secret))

    def spent_on(self, request: str) -> Record:
        """This after admitting `request`; the same if that had been admitted before."""
        if request in self.used_by:
            return self
        return replace(self, uses=self.uses - 1, used_by=(*self.used_by, request))


def new(pool: str, role: Role, ca: str, lifetime: float) -> Token:
    """A new token for the CA with the full fingerprint `ca`; `lifetime` is in seconds.

    Raises BadInput for a role that tokens are not for, or a lifetime that is none.
    """
    if role not in TOKEN_ROLES:
        raise BadInput(f"a join token is for submit or execute, not for {role!a}")
    if not 0 < lifetime <= 366 * 86400:
        raise BadInput("a join token lives more than no time and at most a year; try 1h")
    return Token(
        pool,
        role,
        int(time.time() + lifetime),
        secrets.token_hex(8),
        ca,
        secrets.token_bytes(_SECRET_BYTES),
    )


def parse(text: str) -> Token:
    """The token in `text`. Raises BadInput if it is none; whether it holds is for `check`."""
    text = text.strip()
    if not text.startswith(PREFIX):
        raise BadInput("the join token is unreadable: it does not begin with roost-join.v1.")
    payload, _, secret_text = text.removeprefix(PREFIX).partition(".")
    try:
        said: Any = json.loads(_decode(payload))
        token = Token(said["p"], said["r"], said["e"], said["i"], said["c"], _decode(secret_text))
        good = (
            isinstance(token.pool, str)
            and token.role in ROLES
            and type(token.expires) is int
            and _is_hex(token.id, 16)
            and _is_hex(token.ca, 64)
            and len(token.secret) == _SECRET_BYTES
        )
    except (ValueError, KeyError, TypeError, RecursionError):
        good = False
    if not good:
        raise BadInput("the join token is unreadable: it was cut or changed; copy all of its line")
    return token


def check(token: Token | Record, role: Role, now: float) -> None:
    """Raises BadInput if a token has expired at `now` (Unix time) or is for another role."""
    if now >= token.expires:
        raise BadInput(
            f"the join token expired at {stamp(token.expires)} and it is {stamp(now)} here;"
            f" make a new one on the master: roost-node join-token {role}"
        )
    if role != token.role:
        raise BadInput(
            f"the join token is for the role {token.role} and this node is {role};"
            f" make one on the master: roost-node join-token {role}"
        )


def stamp(when: float) -> str:
    """Unix time as people read it."""
    return time.strftime("%F %T UTC", time.gmtime(when))


def save(directory: Path, record: Record) -> None:
    """Write a record, all or nothing."""
    files.write(directory / f"{record.id}.json", dump(record))


def dump(record: Record) -> bytes:
    """A record as its file holds it."""
    return json.dumps(asdict(record)).encode()


def load(directory: Path, id: str) -> Record | None:
    """The record of that id, if there is one."""
    try:
        said = json.loads((directory / f"{id}.json").read_bytes())
    except FileNotFoundError:
        return None
    said["used_by"] = tuple(said["used_by"])
    return Record(**cast(dict[str, Any], said))


def prune(directory: Path, now: float) -> None:
    """Forget what expired more than a day ago; until then the master can say that it expired."""
    for path in directory.glob("*.json"):
        record = load(directory, path.stem)
        if record is not None and record.expires + 86400 < now:
            path.unlink(missing_ok=True)


def _is_hex(text: object, length: int) -> bool:
    return isinstance(text, str) and len(text) == length and set(text) <= set("0123456789abcdef")


def _hash(secret: bytes) -> str:
    # A plain hash is enough: the secret is 32 random bytes, nothing that could be guessed.
    return hashlib.sha256(secret).hexdigest()


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _decode(text: str) -> bytes:
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, UnicodeEncodeError) as error:
        raise ValueError("not base64") from error
