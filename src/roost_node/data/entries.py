"""What a pool offers for mounting, and what a job asks for: both as values.

The pool's file (`--data FILE`) is JSON, made by roost of the pool file's `data:`:

    {"entries": {"lab": {"type": "rclone", "backend": "s3", …, "token": true}}, "urls": ["https"]}

A job asks with `+DataMounts = "johns-space:data, lab:ref:rw, https://HOST/PATH:web"`: a name or
URL, the directory in its sandbox (the name itself if absent), and `rw` if it wants to write.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from roost_node.data.shape import Entry, Refused
from roost_node.errors import BadInput

#: Of a job's ad: what it asks for; that it mounts by itself and needs a mount namespace for it.
DATA_MOUNTS: Final = "DataMounts"
PRIVATE_MOUNTS: Final = "PrivateMounts"

TYPES: Final = ("onedata", "rclone", "sshfs", "cvmfs", "bind")
#: The type that mounts URLs of each scheme.
SCHEMES: Final[Mapping[str, str]] = {
    "onedata": "onedata", "http": "rclone", "https": "rclone", "dav": "rclone", "davs": "rclone",
    "s3": "rclone",
}  # fmt: skip

#: No job needs more, and each has a server of its own.
MOST: Final = 16

_NAME: Final = re.compile(r"[a-z]([a-z0-9-]{0,30}[a-z0-9])?")
_URL: Final = re.compile(r"([a-z0-9]+)://[^\s,]+")
_COMMON: Final = ("type", "token", "read_only", "wait")


@dataclass(frozen=True)
class Offer:
    """What the pool offers."""

    entries: Mapping[str, Entry]
    urls: tuple[str, ...] = ()


@dataclass(frozen=True)
class Wish:
    """One mount that a job asks for."""

    entry: Entry
    directory: str
    """Relative to the sandbox."""
    write: bool = False


def read(text: str, source: str) -> Offer:
    """The pool's offer. Raises BadInput, one sentence."""
    try:
        data = json.loads(text)
        entries = {str(name): _entry(str(name), said) for name, said in data["entries"].items()}
        urls = tuple(str(scheme) for scheme in data.get("urls", ()))
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        raise BadInput(f"--data {source} is not what roost writes: {error}") from None
    unknown = [scheme for scheme in urls if scheme not in SCHEMES]
    if unknown:
        raise BadInput(f"--data {source}: no type mounts URLs of {unknown[0]!r}")
    return Offer(entries, urls)


def _entry(name: str, said: Mapping[str, Any]) -> Entry:
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name!r} is not a name")
    if said["type"] not in TYPES:
        raise ValueError(f"the type {said['type']!r} is unknown")
    return Entry(
        name,
        said["type"],
        {key: value for key, value in said.items() if key not in _COMMON},
        token=bool(said.get("token")),
        read_only=bool(said.get("read_only")),
        wait=float(said.get("wait", 30)),
    )


def wishes(text: str, offer: Offer) -> tuple[Wish, ...]:
    """The mounts in a job's DataMounts. Raises Refused, a whole sentence."""
    found = tuple(_wish(item.strip(), offer) for item in text.split(",") if item.strip())
    if len(found) > MOST:
        raise Refused(f"DataMounts names {len(found)} mounts; a job can have {MOST}")
    # A mount in a mount would be a directory of the first one's data, made there.
    taken: list[str] = []
    for wish in sorted(found, key=lambda wish: wish.directory.split("/")):
        if taken and f"{wish.directory}/".startswith(f"{taken[-1]}/"):
            raise Refused(
                f"DataMounts puts {wish.entry.name} where another mount is ({taken[-1]}); "
                "give each a directory of its own"
            )
        taken.append(wish.directory)
    return found


def _wish(item: str, offer: Offer) -> Wish:
    head, directory, mode = _parts(item)
    if mode not in ("", "ro", "rw"):
        raise Refused(f"DataMounts has {item!r}: after the directory stands rw, ro or nothing")
    url = _URL.fullmatch(head)
    if url:
        if url[1] not in offer.urls:
            raise Refused(f"DataMounts has the URL {head}, and this pool permits no {url[1]}: URLs")
        if not directory:
            raise Refused(f"DataMounts has {item!r}: a URL needs a directory, as in {head}:data")
        entry = _of_url(head, url[1])
    elif head in offer.entries:
        entry = offer.entries[head]
    else:
        known = ", ".join(sorted(offer.entries)) or "none"
        raise Refused(f"DataMounts has {head!r}, which this pool has not; it has: {known}")
    directory = directory or head
    steps = directory.split("/")
    if directory.startswith("/") or any(step in ("", ".", "..") for step in steps):
        raise Refused(
            f"DataMounts has the directory {directory!r}; give one in the sandbox, such as data"
        )
    if mode == "rw" and entry.read_only:
        raise Refused(f"DataMounts asks to write to {entry.name}, which this pool mounts read-only")
    return Wish(entry, directory, mode == "rw")


def _parts(item: str) -> tuple[str, str, str]:
    """Name or URL, directory, and `rw`: of a URL the colons after its path count."""
    scheme, separator, rest = item.partition("://")
    if separator:
        host, slash, path = rest.partition("/")
        path, _, tail = path.partition(":")
        head = f"{scheme}://{host}{slash}{path}"
    else:
        head, _, tail = item.partition(":")
    directory, _, mode = tail.partition(":")
    return head.strip(), directory.strip(), mode.strip()


def _of_url(url: str, scheme: str) -> Entry:
    """The entry that a URL is. What it needs to be let in, nobody can say: it is public."""
    parts = urlsplit(url)
    path = unquote(parts.path)
    if parts.username is not None:
        raise Refused("DataMounts has a URL with a user in it, where everybody reads it; remove it")
    if not parts.netloc:
        raise Refused(f"DataMounts has the URL {url}, which names no host")
    bare = Entry(url, SCHEMES[scheme])
    match scheme:
        case "onedata":  # onedata://HOST/SPACE/PATH
            space, _, below = path.strip("/").partition("/")
            options: dict[str, Any] = {"host": parts.netloc, "space": space, "path": below}
            return replace(bare, options=options, token=True)
        case "s3":  # s3://BUCKET/PATH
            options = {"backend": "s3", "path": parts.netloc + path, "options": {"provider": "AWS"}}
        case _:
            web = {"dav": "http", "davs": "https"}.get(scheme, scheme)
            backend = "webdav" if scheme.startswith("dav") else "http"
            options = {"backend": backend, "path": "",
                       "options": {"url": f"{web}://{parts.netloc}{parts.path}"}}  # fmt: skip
    return replace(bare, options=options)


def token_name(entry: Entry) -> str:
    """The entry whose stored token a job shows for this one: a URL's is that of its type."""
    return entry.type if "://" in entry.name else entry.name
