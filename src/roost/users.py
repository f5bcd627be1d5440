"""Those who submit: what they need to reach the pool, here or on a machine of their own."""

from __future__ import annotations

import io
import json
import os
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from roost import client, inside
from roost.engines.base import Engine
from roost.errors import BadInput, PoolNotReady
from roost.plan import Observed, ObservedNode
from roost.security import PoolKeys, Secret
from roost_node import files, pki
from roost_node.vocab import CA_CERT, CONDOR_PORT

#: How long a certificate for elsewhere may be good, in seconds.
_SHORTEST: Final = 3600
_LONGEST: Final = 366 * 86400
#: What HTCondor calls the directory of the file that CONDOR_CONFIG names: wherever it is unpacked.
_HERE: Final = Path("$(CONFIG_ROOT)")
_CONFIG: Final = "condor_config"
_SCHEDD: Final = "schedd"


@dataclass(frozen=True)
class Bundle:
    """A file with all that a user needs elsewhere, a private key among it."""

    path: str
    expires: float
    """Unix time."""


class Users:
    """The users of a pool that runs, as seen by whoever holds its authority."""

    def __init__(
        self, engine: Engine, observed: Observed, keys: PoolKeys, *, port: int = CONDOR_PORT
    ) -> None:
        """`port` is HTCondor's on the access point."""
        self._port = port
        self._engine = engine
        self._observed = observed
        self._keys = keys
        self._pool = observed.pool

    def configured(self, name: str) -> Path:
        """HTCondor's configuration for this user on this machine; certificate and key beside it.

        Each is made or renewed where that is needed.
        """
        self._require_authority()
        mine = self._keys.write_user(name)
        config, schedd = (mine.key.with_suffix(end) for end in (".conf", ".schedd"))
        text = self._configuration(schedd, mine.ca, mine.certificate, mine.key)
        files.write(schedd, self._address())
        files.write(config, text)
        return config

    def bundle(self, name: str, path: Path, seconds: float | None = None) -> Bundle:
        """Write a tar file with which this user reaches the pool from another machine or account.

        The key in it is new and nowhere else. The file is its owner's alone; written by root it
        belongs to the owner of its directory. Raises BadInput for a file that exists, and for a
        life that no certificate may have.
        """
        self.check(name, path, seconds)
        days = pki.USER_DAYS if seconds is None else seconds / 86400
        # First what may fail.
        config = self._configuration(
            _HERE / _SCHEDD, _HERE / CA_CERT, _HERE / "user.crt", _HERE / "user.key"
        )
        address = self._address()
        ca, certificate, key = self._keys.issue_user(name, days)
        content = {_CONFIG: config, _SCHEDD: address, CA_CERT: ca, "user.crt": certificate}
        files.write(path, _packed(f"{self._pool}-{name}", content, {"user.key": key}))
        return Bundle(str(path), pki.expires(certificate).timestamp())

    def check(self, name: str, path: Path | None, seconds: float | None) -> None:
        """Raises BadInput if `name` is revoked or, with a path, if `bundle` would."""
        self._keys.require_not_revoked(name)
        if seconds is not None and not _SHORTEST <= seconds <= _LONGEST:
            raise BadInput(
                "a user's certificate is good for 1h to 366d", advice="choose from those"
            )
        if path is None:
            if seconds is not None:
                raise BadInput(
                    "a life is for the certificate in a file", advice="name the file with -o"
                )
            return
        self._require_authority()
        if os.path.lexists(path):
            raise BadInput(f"{path} exists already", advice="name a new file")
        if not path.absolute().parent.is_dir():
            raise BadInput(f"{path.parent} is not a directory", advice="name a file in one")

    def accounts(self) -> tuple[str, ...]:
        """Everybody with an account on the access point."""
        said = inside.ask(self._engine, self._access_point().ref, "user", "ls").text
        return tuple(json.loads(said))

    def _require_authority(self) -> None:
        if "master" not in self._engine.delivers:
            raise BadInput(
                f"the authority of a pool on {self._engine.name} is in its master, and issues "
                "nothing for this machine",
                advice="use `roost submit`, or the tools in the pool: `roost shell submit`",
            )

    # --- where the pool is ------------------------------------------------------------------

    def _configuration(self, schedd: Path, ca: Path, cert: Path, key: Path) -> bytes:
        masters = self._nodes("master")
        there = sorted(masters, key=lambda node: (node.state != "running", node.started))
        there = [node for node in there if node.state == "running"] or there[:1]
        return client.configuration(
            self._pool,
            collectors=[
                client.sinful(self._engine.endpoint(master.ref, CONDOR_PORT), master.name)
                for master in there
            ],
            schedd_file=schedd, ca=ca, cert=cert, key=key,
        ).encode()  # fmt: skip

    def _address(self) -> bytes:
        """What HTCondor's file of the schedd's address holds."""
        access = self._access_point()
        address = client.sinful(
            self._engine.endpoint(access.ref, self._port), access.name, sock="schedd"
        )
        # The bindings want to know the version of what they talk to; it stands in the same file.
        version = self._engine.exec(access.ref, ["condor_version"]).check().text
        return f"{address}\n{version}".encode()

    def _access_point(self) -> ObservedNode:
        (access, *_) = self._nodes("submit")
        if access.state != "running":
            raise PoolNotReady(
                f"{access.name} does not run: it is {access.state}",
                advice="`roost up` starts it again, `roost logs` says why it ended",
            )
        return access

    def _nodes(self, role: str) -> list[ObservedNode]:
        found = [node for node in self._observed.nodes if node.role == role]
        if not found:
            raise PoolNotReady(f"the pool {self._pool!r} has no {role}", advice="run `roost up`")
        return found


def _packed(directory: str, content: dict[str, bytes], secrets: dict[str, Secret]) -> bytes:
    """A tar file of one directory, closed to others, that belongs to whoever unpacks it."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        folder = tarfile.TarInfo(directory)
        folder.type, folder.mode = tarfile.DIRTYPE, 0o700
        tar.addfile(folder)
        revealed = {name: secret.reveal() for name, secret in secrets.items()}
        for name, data in (content | revealed).items():
            entry = tarfile.TarInfo(f"{directory}/{name}")
            entry.size, entry.mode = len(data), 0o600
            tar.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()
