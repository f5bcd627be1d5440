"""The pool's certificate authority on the user's machine; secrets that do not show themselves."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from roost.errors import BadInput
from roost_node import files, pki, tokens
from roost_node.errors import NodeError
from roost_node.vocab import (
    CA_CERT,
    CA_KEY,
    NODE_CERT,
    NODE_KEY,
    READER_CERT,
    READER_KEY,
    Role,
    identity,
    second_master,
)

#: Of the replacement of an authority, until it is complete.
_NEXT_KEY: Final = "next.key"
_NEXT_CERT: Final = "next.crt"


class Secret:
    """Bytes that never appear in a repr, a log or a traceback; `reveal()` is the one way out."""

    __slots__ = ("_value",)

    def __init__(self, value: bytes) -> None:
        self._value = value

    def reveal(self) -> bytes:
        return self._value

    def __repr__(self) -> str:
        return "Secret(…)"


@dataclass(frozen=True)
class UserFiles:
    """Where a user's credentials lie on this machine."""

    ca: Path
    certificate: Path
    key: Path


@dataclass(frozen=True)
class JoinToken:
    """A join token, and what the pool's master must hold so that it is accepted."""

    text: Secret
    path: str
    """Of the record, below the master's state directory."""
    record: bytes
    """Holds a hash only: nothing secret."""


def state_home() -> Path:
    """Where roost keeps what it must not lose: `$XDG_STATE_HOME/roost`."""
    # An empty or relative value is to be ignored, says the XDG specification.
    configured = Path(os.environ.get("XDG_STATE_HOME", ""))
    base = configured if configured.is_absolute() else Path.home() / ".local" / "state"
    return base / "roost"


@dataclass(frozen=True)
class Issued:
    """A certificate that was made here."""

    name: str
    """The identity: the CN."""
    role: str
    id: str
    issued: float
    """Unix time."""
    expires: float


class PoolKeys:
    """A pool's authority, kept in a directory that nobody but its owner may enter.

    Made when it is first needed; safe from several processes. Every method raises BadInput when
    the directory is open to others or holds what does not belong together.
    """

    def __init__(
        self, pool: str, home: Path | None = None, *, node_days: float = pki.NODE_DAYS
    ) -> None:
        self.pool = pool
        self.directory = (home or state_home()) / pool
        self._node_days = node_days

    def node_files(self, role: Role, node: str) -> Mapping[str, Secret]:
        """A node's identity by file name: its own key and certificate, new at each call.

        The first master also gets the CA's key, to admit nodes that are started by hand; the access
        point the identity with which its users read the collector.
        """
        with self._authority() as (ca_key, ca_cert):
            key = pki.new_key()
            content = {
                CA_CERT: ca_cert,
                NODE_CERT: pki.sign_node(
                    ca_key, ca_cert, pki.public_key(key), role, node, days=self._node_days
                ),
                NODE_KEY: key,
            }
            self.require_not_revoked(identity(role, node))
            self._record(role, content[NODE_CERT])
            if role == "master" and node != second_master(self.pool):
                content[CA_KEY] = ca_key
            if role == "submit":
                reader = pki.new_key()
                content[READER_KEY] = reader
                content[READER_CERT] = pki.sign_reader(
                    ca_key, ca_cert, pki.public_key(reader), days=self._node_days
                )
        return {name: Secret(value) for name, value in content.items()}

    def user_files(self, name: str) -> Mapping[str, Secret]:
        """A user's credentials by file name (`ca.crt`, `<name>.crt`, `<name>.key`), for delivery.

        The same that `write_user` keeps. Raises BadInput for a name that a user may not have.
        """
        paths = self.write_user(name)
        return {path.name: Secret(path.read_bytes()) for path in vars(paths).values()}

    def issue_user(self, name: str, days: float = pki.USER_DAYS) -> tuple[bytes, bytes, Secret]:
        """CA, certificate and key for a user elsewhere; no copy of the key stays here."""
        with self._authority() as (ca_key, ca_cert):
            pki.check_user(name)
            self.require_not_revoked(name)
            key = pki.new_key()
            certificate = pki.sign_user(ca_key, ca_cert, pki.public_key(key), name, days=days)
            self._record("user", certificate)
        return ca_cert, certificate, Secret(key)

    def write_user(self, name: str) -> UserFiles:
        """A user's certificate and key under `users/`, made or renewed where that is needed."""
        with self._authority() as (ca_key, ca_cert):
            pki.check_user(name)
            self.require_not_revoked(name)
            users = self.directory / "users"
            users.mkdir(mode=0o700, exist_ok=True)
            found = UserFiles(
                self.directory / CA_CERT, users / f"{name}.crt", users / f"{name}.key"
            )
            if not self._serves(ca_cert, found, name):
                key = pki.new_key()
                # The old certificate first: a key without one is made anew, never half a pair.
                found.certificate.unlink(missing_ok=True)
                files.write(found.key, key)
                certificate = pki.sign_user(ca_key, ca_cert, pki.public_key(key), name)
                files.write(found.certificate, certificate, 0o644)
                self._record("user", certificate)
        return found

    def drop_user(self, name: str) -> None:
        """Remove what `write_user` and `roost env` keep for a user; a no-op if there is nothing."""
        with self._authority():
            for path in (self.directory / "users").glob(f"{pki.check_user(name)}.*"):
                path.unlink()

    # --- who has what -----------------------------------------------------------------------

    def issued(self) -> tuple[Issued, ...]:
        """What was issued here last under each name; masters renew their own."""
        if not (self.directory / "issued").is_dir():
            return ()
        with self._authority():
            found = []
            for path in sorted((self.directory / "issued").glob("*.crt")):
                role, _, cert = path.read_bytes().partition(b"\n")
                found.append(
                    Issued(
                        path.stem, role.decode(), pki.serial(cert),
                        pki.issued(cert).timestamp(), pki.expires(cert).timestamp(),
                    )
                )  # fmt: skip
        return tuple(found)

    def revoke(self, names: Collection[str], *, undo: bool = False) -> None:
        """Issue nothing for these identities any more, or (`undo`) again."""
        with self._authority():
            there = set(self.revoked())
            there = there - set(names) if undo else there | set(names)
            text = "".join(f"{name}\n" for name in sorted(there))
            files.write(self.directory / "revoked", text.encode())

    def revoked(self) -> tuple[str, ...]:
        """The identities for which nothing is issued."""
        try:
            return tuple((self.directory / "revoked").read_text().split())
        except FileNotFoundError:
            return ()

    def require_not_revoked(self, name: str) -> None:
        """Raises BadInput for an identity for which nothing is issued."""
        if name in self.revoked():
            raise BadInput(
                f"{name} is revoked in the pool {self.pool!r}",
                advice=f"use another name, or `roost credential revoke --undo {name}`",
            )

    def _record(self, role: str, cert: bytes) -> None:
        register = self.directory / "issued"
        register.mkdir(mode=0o700, exist_ok=True)
        files.write(register / f"{pki.common_name(cert)}.crt", role.encode() + b"\n" + cert)

    # --- another authority ------------------------------------------------------------------

    def next_authority(self) -> tuple[Secret, bytes]:
        """Key and certificate of the authority that is to replace this one; trusted from now on.

        The same until `finish_authority`, however often it is asked for.
        """
        with self._authority() as (ca_key, ca_cert):
            key, cert = self.directory / _NEXT_KEY, self.directory / _NEXT_CERT
            if not cert.exists():
                key_pem, cert_pem = pki.new_ca(self.pool)
                files.write(key, key_pem)
                files.write(cert, cert_pem, 0o644)
            cert_pem = files.read(cert, "the new CA certificate")
            present = pki.issuing(ca_cert, ca_key)
            if present != cert_pem:
                files.write(self.directory / CA_CERT, present + cert_pem, 0o644)
            return Secret(files.read(key, "the new CA key")), cert_pem

    def switch_authority(self) -> None:
        """Sign with the next authority, and issue every user's certificate anew."""
        with self._authority() as (_, ca_cert):
            new = files.read(self.directory / _NEXT_CERT, "the new CA certificate")
            others = b"".join(each for each in pki.authorities(ca_cert) if each != new)
            key = files.read(self.directory / _NEXT_KEY, "the new CA key")
            files.write(self.directory / CA_KEY, key)
            files.write(self.directory / CA_CERT, new + others, 0o644)
        for path in sorted((self.directory / "users").glob("*.crt")):
            if path.stem not in self.revoked():
                self.write_user(path.stem)

    def finish_authority(self) -> None:
        """Trust the next authority alone; it is the present one from now on."""
        with self._authority() as (ca_key, ca_cert):
            files.write(self.directory / CA_CERT, pki.issuing(ca_cert, ca_key), 0o644)
            for name in (_NEXT_CERT, _NEXT_KEY):
                (self.directory / name).unlink(missing_ok=True)

    def join_token(self, role: Role, lifetime: float = 3600, uses: int = 1) -> JoinToken:
        """A token that admits `uses` nodes as `role` during `lifetime` seconds."""
        with self._authority() as (_, ca_cert):
            token = tokens.new(self.pool, role, pki.full_fingerprint(ca_cert), lifetime)
        record = tokens.dump(token.record(uses))
        return JoinToken(Secret(token.text.encode()), f"admit/tokens/{token.id}.json", record)

    def keep(self, name: str, content: bytes) -> None:
        """Write a file where the keys are, or would be: on Marathon the master alone has them."""
        with self._inside():
            files.write(self.directory / name, content)

    def forget(self) -> None:
        """Remove the directory and all that is in it; a no-op if there is none."""
        if not self.directory.is_symlink() and not self.directory.exists():
            return
        with self._inside():
            shutil.rmtree(self.directory)

    @contextmanager
    def _authority(self) -> Iterator[tuple[bytes, bytes]]:
        """The CA's key and certificate, made if there are none, with the directory locked."""
        with self._inside():
            key, cert = self.directory / CA_KEY, self.directory / CA_CERT
            # The certificate is written last: without it nothing has been issued yet.
            if not cert.exists():
                key_pem, cert_pem = pki.new_ca(self.pool)
                files.write(key, key_pem)
                files.write(cert, cert_pem, 0o644)
            key_pem = files.read(key, "the CA key")
            cert_pem = files.read(cert, "the CA certificate")
            pki.check_key(key, key_pem)
            ours = any(pki.fits(key_pem, each) for each in pki.authorities(cert_pem))
            if not ours or pki.pool_of(cert_pem) != self.pool:
                raise BadInput(
                    f"{self.directory} does not hold the authority of pool {self.pool!r}",
                    advice=f"remove the pool (roost down --name {self.pool}) and make it anew",
                )
            if pki.expires(pki.issuing(cert_pem, key_pem)) < datetime.now(UTC):
                raise BadInput(
                    f"the authority of pool {self.pool!r} expired at"
                    f" {pki.expires(cert_pem):%F %T} UTC",
                    advice="remove the pool and make it anew, or check this machine's clock",
                )
            yield (
                key_pem,
                pki.issuing(cert_pem, key_pem)
                + b"".join(
                    each for each in pki.authorities(cert_pem) if not pki.fits(key_pem, each)
                ),
            )

    @contextmanager
    def _inside(self) -> Iterator[None]:
        """With the directory checked and locked; roost_node's errors become roost's."""
        try:
            while True:
                self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
                self.check()
                with files.locked(self.directory) as ours:
                    # Another process may have forgotten the pool while this one waited.
                    if ours():
                        yield
                        return
        except NodeError as error:
            raise BadInput(str(error)) from None
        except OSError as error:
            raise BadInput(
                f"the pool's keys in {self.directory} cannot be used: {error.strerror or error}",
                advice="check who owns the directory and whether the disk is full",
            ) from None

    def check(self) -> None:
        """Raises BadInput if others may enter the directory; a no-op if there is none."""
        try:
            there = self.directory.lstat()
        except (FileNotFoundError, NotADirectoryError):
            return
        except OSError as error:
            raise BadInput(
                f"{self.directory} cannot be looked at: {error.strerror}",
                advice="check who owns the directories above it",
            ) from None
        if not stat.S_ISDIR(there.st_mode):
            raise BadInput(f"{self.directory} is not a directory", advice="move it away")
        if there.st_uid != os.geteuid():
            raise BadInput(
                f"{self.directory} belongs to user {there.st_uid}, not to you ({os.geteuid()})",
                advice=f"run roost as its owner, or chown -R {os.geteuid()} {self.directory}",
            )
        if mode := stat.S_IMODE(there.st_mode) & 0o077:
            raise BadInput(
                f"{self.directory} is open to others (mode {0o700 | mode:04o})",
                advice=f"chmod 700 {self.directory}",
            )

    @staticmethod
    def _serves(ca_cert: bytes, there: UserFiles, name: str) -> bool:
        """Whether a user's files are good for a while yet."""
        try:
            cert = files.read(there.certificate, "the certificate")
            key = files.read(there.key, "the private key")
            pki.check_key(there.key, key)
            pki.verify(ca_cert, cert, key, name)
            # Not of an authority that is being replaced, either.
            if pki.issuer(pki.authorities(ca_cert)[0], cert) is None:
                return False
            if datetime.now(UTC) >= pki.renewal(cert):
                return False
        except NodeError:
            return False
        return True
