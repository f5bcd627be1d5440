"""Users' tokens for the pool's data: kept by HTCondor on the access point, asked for there."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Final

from roost.engines.base import Engine
from roost.inside import ask
from roost.plan import Ref
from roost.security import Secret

#: Seconds for one question; the access point may ask a provider meanwhile.
_PATIENCE: Final = 120


@dataclass(frozen=True)
class DataItem:
    """Something that jobs may mount, as one user sees it."""

    name: str
    type: str
    token: bool
    """Whether it needs a token."""
    stored: bool
    """Whether the user's token is stored."""
    expires: float | None
    """Until when that is good, in seconds since 1970; None if never, or not known."""


@dataclass(frozen=True)
class Login:
    """A token that was stored."""

    expires: float | None
    unchecked: str
    """Why nobody could say whether it is good; empty if somebody did."""


class Tokens:
    """The tokens of one user in one pool."""

    def __init__(self, engine: Engine, access_point: Ref, user: str) -> None:
        self._engine = engine
        self._access_point = access_point
        self.user = user

    def list(self) -> tuple[DataItem, ...]:
        """What the pool's jobs may mount, by name."""
        return tuple(DataItem(**row) for row in self._ask("list"))

    def login(self, name: str, token: Secret) -> Login:
        """Store the token, if it is good. Raises BadInput if it is not, or not for this pool."""
        return Login(**self._ask("login", name, stdin=token.reveal()))

    def logout(self, name: str) -> None:
        """Forget the token; a no-op if there is none."""
        if any(item.stored for item in self.list() if item.name == name):
            self._ask("logout", name)

    def _ask(self, *words: str, stdin: bytes = b"") -> Any:
        argv = ("token", *words, self.user)
        done = ask(self._engine, self._access_point, *argv, stdin=stdin, timeout=_PATIENCE)
        return json.loads(done.text)
