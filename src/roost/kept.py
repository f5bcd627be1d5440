"""What this machine keeps of a pool beside its keys: what was asked for last, in `pool.json`.

Without the keys nothing can be added to a pool, so the two belong in one place, and a label could
not be changed without making its container anew.
"""

from __future__ import annotations

import re
from pathlib import Path

from roost import specfile
from roost.errors import BadInput
from roost.fit import as_observed
from roost.plan import Observed
from roost.security import PoolKeys
from roost.spec import NAME_PATTERN, PoolSpec


def checked(name: str) -> str:
    """A pool's name, if it is one: names become paths. Raises BadInput."""
    if not re.fullmatch(NAME_PATTERN, name):
        raise BadInput(
            f"{name!r} is not a pool's name",
            advice="use a-z, 0-9 and -, a letter first and no - last, at most 32 characters",
        )
    return name


def last(name: str) -> Path | None:
    """Where it stands what was asked for last; None if nothing was.

    Raises BadInput if others could have written it.
    """
    if not re.fullmatch(NAME_PATTERN, name):
        return None
    keys = PoolKeys(name)
    keys.check()
    path = keys.directory / "pool.json"
    return path if path.is_file() else None


def stored(name: str) -> PoolSpec | None:
    """What was asked for last; None if nothing was, or not here."""
    path = last(name)
    return specfile.load(path, environ={}) if path else None


def remember(spec: PoolSpec, observed: Observed) -> PoolSpec:
    """Store `spec` with the counts that the engine holds, and return that."""
    now = as_observed(spec, observed)
    text = now.model_dump_json(indent=2, exclude_defaults=True)
    PoolKeys(now.name).keep("pool.json", f"{text}\n".encode())
    return now


def require_keys(name: str) -> None:
    """Raises BadInput where this machine cannot add anything to the pool."""
    if last(name) is None:
        raise BadInput(
            f"the keys of the pool {name!r} are not here: it was made by another user or machine",
            advice="run this where it was made",
        )
