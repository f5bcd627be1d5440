"""What a node can mount for its jobs: found out at its start."""

from __future__ import annotations

import importlib
import pwd
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from roost_node.data import entries, probe
from roost_node.data.entries import SCHEMES, Offer
from roost_node.data.job import OFFER
from roost_node.data.types import bind
from roost_node.errors import BadInput

#: In an image that is built with `onedata`.
ONEDATA: Final = Path("/usr/lib/roost/onedata-plugin")
#: The account of a job: the first of those that the image has.
_ACCOUNT: Final = "slot1_1"


@dataclass(frozen=True)
class Ability:
    """What jobs may ask for by name, and what stands in the way."""

    names: tuple[str, ...] = ()
    """Names of the pool file's `data:`; of URLs `https_url`."""
    plugins: tuple[Path, ...] = ()
    """HTCondor's file-transfer plugins for what needs no mount."""
    problem: str = ""
    """Why this node mounts less than the pool offers, in one sentence."""


def read(path: Path) -> Offer:
    """The pool's offer in the file that roost delivered. Raises BadInput."""
    try:
        return entries.read(path.read_text(), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"--data {path} cannot be read: {error}") from None


def names(offer: Offer) -> tuple[str, ...]:
    """All that the pool offers, by the names that access points and nodes give it."""
    return (*sorted(offer.entries), *(f"{scheme}_url" for scheme in sorted(offer.urls)))


def prepare(path: Path) -> Ability:
    """Make an executor ready for jobs that mount. Raises BadInput."""
    offer = read(path)
    OFFER.write_text(path.read_text())
    OFFER.chmod(0o644)
    plugins = (ONEDATA,) if _transfers(offer) and ONEDATA.exists() else ()
    problem = probe.problem(*_ids())
    if problem:
        return Ability(plugins=plugins, problem=problem)
    missing = {name: why for name, why in ((name, _missing(offer, name)) for name in names(offer))
               if why}  # fmt: skip
    return Ability(
        tuple(name for name in names(offer) if name not in missing),
        plugins,
        "; ".join(dict.fromkeys(missing.values())),
    )


def _transfers(offer: Offer) -> bool:
    """Whether onedata:// URLs mean something in this pool."""
    types = {entry.type for entry in offer.entries.values()}
    return "onedata" in types or "onedata" in offer.urls


def _ids() -> tuple[int, int]:
    account = pwd.getpwnam(_ACCOUNT)
    return account.pw_uid, account.pw_gid


def _missing(offer: Offer, name: str) -> str:
    """Why this image cannot mount it; empty if it can."""
    entry = offer.entries.get(name)
    kind = entry.type if entry else SCHEMES[name.removesuffix("_url")]
    if entry and kind == "bind" and not bind.place(entry).is_dir():
        return f"{name}: the container has no {bind.place(entry)}"
    try:
        program = str(importlib.import_module(f"roost_node.data.types.{kind}").PROGRAM)
    except ImportError:
        return f"{name}: this image cannot mount {kind}"
    if program and not shutil.which(program):
        return f"{name}: the image has no {program}"
    return ""
