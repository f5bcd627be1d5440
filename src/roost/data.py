"""The `data:` of a pool file: what jobs may mount by name, as values.

A type here has its other half in `roost_node.data.types`, in the module of the same name, which
makes a mount of it. Nothing here is secret: what a job shows to be let in is not in the pool file.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from roost_node.data.entries import SCHEMES

HOST_PATTERN: Final = r"^[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?(:[0-9]{1,5})?$"
OPTION_PATTERN: Final = r"^[A-Za-z][A-Za-z0-9_.-]*$"
BACKEND_PATTERN: Final = r"^[a-z][a-z0-9]*$"

#: Seconds that a mount may take before its job is held.
WAIT: Final = 30

#: Words in the names of options whose values are secret: they belong to the token.
_SECRET: Final = ("pass", "secret", "token", "bearer", "private", "key_pem", "credentials")


def _one_line(text: str) -> str:
    if not text.isprintable():
        raise ValueError("holds characters that are not printable; remove them")
    return text


def _certificates(pem: str) -> str:
    if "-----BEGIN CERTIFICATE-----" not in pem or "PRIVATE KEY" in pem:
        raise ValueError("is not a certificate in PEM: it begins with -----BEGIN CERTIFICATE-----")
    return pem


def _absolute(path: str) -> str:
    if not path.startswith("/") or ".." in path.split("/"):
        raise ValueError(f"is {path[:40]!r}; write it from the root, as in /srv/reference")
    if ":" in path:
        raise ValueError(f"is {path[:40]!r}; an engine cannot mount a path with a colon")
    return path


def _not_secret(options: Mapping[str, str]) -> Mapping[str, str]:
    for name in options:
        if any(word in name.lower() for word in _SECRET):
            raise ValueError(
                f"holds {name!r}, which is a secret: every node would know it; "
                "write it into the token's file"
            )
    return options


Line = Annotated[str, AfterValidator(_one_line)]
Host = Annotated[str, Field(pattern=HOST_PATTERN)]
Options = Annotated[
    Mapping[Annotated[str, Field(pattern=OPTION_PATTERN)], Line], AfterValidator(_not_secret)
]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class Token(_Part):
    """What a job shows to be let in: a token, an SSH key, rclone's secret options."""

    file: Line | None = None
    """Where `roost data login` reads it on this machine, and `roost up` for the first user."""


class _Data(_Part):
    token: Token | None = None
    """What a job shows to be let in; each user stores theirs with `roost data login`."""
    read_only: bool = False
    """Whether jobs that ask to write are refused; all others get it read-only anyway."""
    wait: Annotated[int, Field(strict=True, ge=1, le=3600)] = WAIT
    """Seconds that mounting may take; then the job is held."""


class Onedata(_Data):
    """A space of Onedata."""

    type: Literal["onedata"]
    """`onedata`: a space of Onedata."""
    host: Host
    """The Onezone, or one of the space's Oneproviders; with `:port` if that is not 443."""
    space: Line | None = None
    """The space's name; the entry's own if absent."""
    path: Line = ""
    """A directory in the space; all of it if absent."""
    ca: Annotated[str, AfterValidator(_certificates)] | None = None
    """The CAs that are believed, in PEM; the public ones if absent."""
    timeout: Annotated[int, Field(strict=True, ge=1, le=600)] = 30
    """Seconds of silence after which a request has failed."""
    token: Token | None = Token()
    """The access token; each user stores theirs with `roost data login`."""


class Rclone(_Data):
    """Whatever rclone reaches: S3, WebDAV, SFTP, HTTP and others."""

    type: Literal["rclone"]
    """`rclone`: whatever rclone reaches."""
    backend: Annotated[str, Field(pattern=BACKEND_PATTERN)]
    """What rclone calls it: `s3`, `webdav`, `sftp`, `http`, …"""
    path: Line = ""
    """The bucket or directory there."""
    options: Options = {}
    """The backend's options, as in rclone.conf; secret ones belong into the token."""


class Sshfs(_Data):
    """A directory on an SSH server."""

    type: Literal["sshfs"]
    """`sshfs`: a directory on an SSH server."""
    host: Host
    """The server; with `:port` if that is not 22."""
    user: Line
    """The account there."""
    path: Line = ""
    """The directory there; the account's home if absent."""
    host_key: Line
    """The server's public key, as in `ssh-ed25519 AAAA…`: no other is believed."""
    token: Token | None = Token()
    """The private key; each user stores theirs with `roost data login`."""
    options: Options = {}
    """More of sshfs's own options."""


class Cvmfs(_Data):
    """A repository of CernVM-FS."""

    type: Literal["cvmfs"]
    """`cvmfs`: a repository of CernVM-FS."""
    repository: Host
    """Its name, as in `cms.cern.ch`."""
    server: Line
    """The URL of a stratum, with `@fqrn@` for the repository's name."""
    key: Line
    """The path of the repository's public key in the image."""
    proxy: Line = "DIRECT"
    """The HTTP proxies, as CVMFS_HTTP_PROXY."""
    read_only: Literal[True] = True
    """Nobody writes to CernVM-FS through a mount."""


class Bind(_Data):
    """A directory of the machine that the executors run on."""

    type: Literal["bind"]
    """`bind`: a directory of the machine that the executors run on."""
    path: Annotated[Line, AfterValidator(_absolute)]
    """The directory there."""
    token: None = None
    """Nothing to show: every job on the executor can read it."""


DataEntry = Annotated[Onedata | Rclone | Sshfs | Cvmfs | Bind, Field(discriminator="type")]

#: The model of each type.
TYPES: Final[Mapping[str, type[BaseModel]]] = {
    "onedata": Onedata, "rclone": Rclone, "sshfs": Sshfs, "cvmfs": Cvmfs, "bind": Bind,
}  # fmt: skip

#: The URLs that a pool file can permit beside its names.
Scheme = Literal["onedata", "http", "https", "dav", "davs", "s3"]


#: What `roost image build --with` adds to an image, and which types need it.
Extra = Literal["rclone", "sshfs", "onedata", "oneclient"]
_NEEDS: Final[Mapping[str, Extra]] = {"rclone": "rclone", "sshfs": "sshfs", "onedata": "onedata"}


def extras(entries: Mapping[str, DataEntry], urls: tuple[Scheme, ...]) -> tuple[Extra, ...]:
    """What the image must have so that nodes can mount all of it, sorted."""
    types = {entry.type for entry in entries.values()} | {SCHEMES[scheme] for scheme in urls}
    return tuple(sorted({_NEEDS[name] for name in types if name in _NEEDS}))


def document(entries: Mapping[str, DataEntry], urls: tuple[Scheme, ...]) -> str:
    """What the nodes are told, as JSON: see roost_node.data.entries."""

    def told(entry: DataEntry) -> dict[str, Any]:
        said = entry.model_dump(exclude_none=True, exclude={"token"})
        return {**said, "token": entry.token is not None}

    return json.dumps(
        {"entries": {name: told(entry) for name, entry in sorted(entries.items())},
         "urls": sorted(urls)},
        indent=1,
    ) + "\n"  # fmt: skip
