"""A node's identity: delivered as files, kept from an earlier start, or asked of the master.

The node makes its key here and it never leaves; the master signs a request for it. With a join
token the master's CA must be the one that the token pins. Without one the first CA seen is trusted
(both sides show fingerprints) and nothing is secret until an administrator has approved the node.
"""

from __future__ import annotations

import http.client
import json
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, TypeVar

from roost_node import files, pki, register, tokens
from roost_node.errors import BadInput, NodeError
from roost_node.vocab import (
    ADMIT_PORT,
    CA_CERT,
    DEFAULT_POOL,
    DUE,
    EXIT_STOPPED,
    IDENTITY_PREFIX,
    MASTER_NAME,
    NODE_CERT,
    NODE_KEY,
    READER_CERT,
    READER_IDENTITY,
    READER_KEY,
    REVOKED,
    Role,
    identity,
)

Say = Callable[[str], None]
T = TypeVar("T")

#: How long one attempt may take, in seconds.
_PATIENCE: Final = 10.0
_MAX_ANSWER: Final = 64 * 1024


class Stopped(NodeError):
    """The node was asked to stop while it waited to be admitted."""

    exit_code = EXIT_STOPPED


@dataclass(frozen=True)
class Identity:
    """Who this node is, as its certificate says."""

    pool: str
    role: Role
    node: str
    master_name: str
    """The host name in the master's certificate; HTCondor's clients must expect it."""


class NotYet(Exception):
    """The master cannot be asked now; the text says why, for people who wait."""


def ensure_identity(
    role: Role,
    node: str,
    pool: str,
    master_address: str,
    token_file: Path | None,
    state_dir: Path,
    say: Say,
    *,
    stop: threading.Event | None = None,
    port: int = ADMIT_PORT,
    poll: float = 1.0,
) -> Identity:
    """This node's identity, with its files in `state_dir`.

    A master makes what it lacks; `pool` names its pool then, and nobody else's: the others learn
    theirs from the CA. They wait until the master admits them. Raises BadInput for credentials that
    do not fit, a bad token or a refusal, Stopped when `stop` is set, NodeError when the master
    cannot be trusted.
    """
    try:
        state_dir.mkdir(parents=True, exist_ok=True)
        if (state_dir / REVOKED).exists():
            raise BadInput(files.read(state_dir / REVOKED, "the revocation").decode().strip())
        if role == "master":
            named = None if pool == DEFAULT_POOL else pool
            found = Identity(register.ensure_ca(state_dir, named, node, say), role, node, node)
            _remember(state_dir)
            return found
        register.settle(state_dir)
        link = Link(master_address, port)
        halt = stop or threading.Event()
        _revive(role, node, link, state_dir, say, halt, poll)
        there = _there(role, node, master_address, state_dir)
        if there is not None:
            _remember(state_dir)
            return there
        token = None
        if token_file is not None:
            token = tokens.parse(files.read(token_file, "the join token").decode(errors="replace"))
            tokens.check(token, role, time.time())
        applicant = _Applicant(role, node, master_address, port, state_dir, token, say)
        found = applicant.admitted(halt, poll)
        _remember(state_dir)
        return found
    except OSError as error:
        raise NodeError(
            f"this node's identity cannot be kept in {state_dir}: {error.strerror or error};"
            " give it a place that can be written, with space left"
        ) from None


def _revive(
    role: Role, node: str, link: Link, state: Path, say: Say, stop: threading.Event, poll: float
) -> None:
    """Renew a certificate that ended not long ago: this node stood still. Else do nothing."""
    from roost_node import renewal

    paths = [state / name for name in (NODE_CERT, NODE_KEY, CA_CERT)]
    if not all(path.is_file() for path in paths):
        return
    cert = files.read(paths[0], "the certificate")
    try:
        ended, now = pki.expires(cert), datetime.now(UTC)
    except BadInput:
        return  # not one at all, for `_there` to say
    if not ended < now < ended + pki.GRACE or pki.common_name(cert) != identity(role, node):
        return
    said = ""
    for pause in _pauses(poll):
        try:
            _unless(stop, lambda: renewal.renew(role, node, link, state, say))
            return
        except NotYet as reason:
            text = f"waiting for the master {link.where} to renew this node's certificate: {reason}"
        except renewal.Refused as reason:
            say(f"the master {link.where} does not renew this node's certificate: {reason}")
            return
        if text != said:
            say(said := text)
        if stop.wait(pause):
            raise Stopped("asked to stop while waiting to be renewed")


def _remember(state: Path) -> None:
    """Write down when the certificate is due."""
    with suppress(OSError):  # delivered read-only
        cert = files.read(state / NODE_CERT, "the certificate")
        files.write(state / DUE, f"{pki.renewal(cert).timestamp():.0f}\n".encode(), 0o644)


def _there(role: Role, node: str, master: str, state_dir: Path) -> Identity | None:
    """The identity that is in the state directory, if there is one. Raises BadInput."""
    cert, key = state_dir / NODE_CERT, state_dir / NODE_KEY
    if not cert.exists():
        return None
    joined = (state_dir / MASTER_NAME).exists()
    with suppress(OSError):  # delivered read-only: then its modes are the deliverer's business
        for name in (CA_CERT, NODE_CERT, READER_CERT, READER_KEY):
            if (state_dir / name).is_file():
                (state_dir / name).chmod(0o644)
    pem = files.read(cert, "the certificate")
    if joined and pki.expires(pem).timestamp() < time.time():
        return None
    name = pki.check(state_dir / CA_CERT, cert, key, role, node)
    if joined:
        master = files.read(state_dir / MASTER_NAME, "the master's name").decode().strip()
    return Identity(name, role, node, master)


class Link:
    """The way to a master's admission service."""

    def __init__(self, host: str, port: int = ADMIT_PORT) -> None:
        self._host, self._port = host, port
        self.where = f"{f'[{host}]' if ':' in host else host}:{port}"

    def exchange(
        self, method: str, path: str, body: Mapping[str, object] | None, ca: bytes | None
    ) -> tuple[int, dict[str, Any], str]:
        """Status, JSON object and the master's name in its certificate (empty without `ca`).

        Raises NotYet when it cannot be asked now, NodeError when it cannot be trusted.
        """
        connection = http.client.HTTPSConnection(
            self._host, self._port, timeout=_PATIENCE / 2, context=_context(ca)
        )
        try:
            connection.connect()
            master = _master_name(connection.sock, self.where) if ca else ""
            connection.request(method, path, json.dumps(body) if body else None)
            with connection.getresponse() as response:
                status, answer = response.status, json.loads(response.read(_MAX_ANSWER))
        except ssl.SSLCertVerificationError as error:
            raise self._distrust(error, ca) from None
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise NotYet(_reason(error, self._port)) from None
        finally:
            connection.close()
        if not isinstance(answer, dict):
            raise NotYet("what answers there is not a roost master")
        return status, answer, master

    def _distrust(self, error: ssl.SSLCertVerificationError, ca: bytes | None) -> NodeError:
        if "expired" in error.verify_message or "not yet valid" in error.verify_message:
            return NodeError(
                f"the certificate of the master {self.where} is not valid now:"
                f" {error.verify_message}; check the clocks of both machines"
            )
        return NodeError(
            f"the certificate of the master {self.where} is not from the CA"
            f" {pki.fingerprint(ca or b'')} that this node trusts: {error.verify_message}; if the"
            " pool was made anew, start this node anew with an empty state directory"
        )


class _Applicant:
    """A node without an identity, and all it knows about its master so far."""

    def __init__(
        self,
        role: Role,
        node: str,
        master: str,
        port: int,
        state_dir: Path,
        token: tokens.Token | None,
        say: Say,
    ) -> None:
        self._role, self._node, self._state, self._token = role, node, state_dir, token
        self._say = say
        self._link = Link(master, port)
        self._where = self._link.where
        self._name = identity(role, pki.check_node(node))
        self._key = _key(state_dir / NODE_KEY)
        self._reader = _key(state_dir / READER_KEY, 0o644) if role == "submit" else None
        self._ca: bytes | None = None
        """The CA to which this node holds, once it has seen one that it may believe."""
        if (ca := state_dir / CA_CERT).exists():
            self._trust(files.read(ca, "the CA certificate"))

    def admitted(self, stop: threading.Event, poll: float) -> Identity:
        """Ask until the master has decided."""
        said = ""
        for pause in _pauses(poll):
            try:
                answer, master = _unless(stop, self._ask)
                if answer.get("certificate") is not None:
                    return self._keep(answer, master)
                text = self._waits(answer, master)
            except NotYet as reason:
                text = f"waiting for the master {self._where}: {reason}"
            if text != said:
                self._say(said := text)
            if stop.wait(pause):
                break
        raise Stopped("asked to stop while waiting to be admitted")

    def _ask(self) -> tuple[dict[str, Any], str]:
        """The master's answer and its name. Raises NotYet, BadInput or NodeError."""
        if self._ca is None:
            _, answer, _ = self._link.exchange("GET", "/v1/ca", None, None)
            self._trust(_text(answer, "ca").encode())
        request: dict[str, str] = {
            "role": self._role,
            "node": self._node,
            "csr": pki.csr(self._key, self._name).decode(),
        }
        if self._reader is not None:
            request["reader_csr"] = pki.csr(self._reader, READER_IDENTITY).decode()
        if self._token is not None:
            request["token"] = self._token.text
        status, answer, master = self._link.exchange("POST", "/v1/join", request, self._ca)
        error = line(answer.get("error", "no reason given"))
        if status in (200, 202):
            return answer, master
        if status in (400, 403):
            raise BadInput(f"the master {self._where} does not admit {self._name}: {error}")
        raise NotYet(f"it answers {status}: {error}")

    def _trust(self, ca: bytes) -> None:
        """Hold to this CA from now on, if the token does not speak against it."""
        try:
            pool = pki.pool_of(ca)
        except BadInput as error:
            raise NodeError(f"the master {self._where} cannot be trusted: {error}") from None
        ca = pki.authorities(ca)[0]
        if self._token is not None and pki.full_fingerprint(ca) != self._token.ca:
            raise BadInput(
                f"the join token is for another pool: it is for {line(self._token.pool)!r} with CA"
                f" {pki.short(self._token.ca)}, and {self._where} serves {pool!r} with CA"
                f" {pki.fingerprint(ca)}; use a token of that master, or the right master"
            )
        self._ca = ca

    def _waits(self, answer: dict[str, Any], master: str) -> str:
        """What to do so that this node is let in; the id is computed here, not believed."""
        assert self._ca is not None
        id = pki.request_id(self._role, self._node, self._key)
        return (
            f"waiting for the master {self._where} (pool {pki.pool_of(self._ca)}, CA"
            f" {pki.fingerprint(self._ca)}) to admit {self._name}, key"
            f" {pki.fingerprint(pki.public_key(self._key))}: {line(answer.get('message', ''))};"
            f" approve it with: docker exec {master} roost-node approve {id}"
        )

    def _keep(self, answer: dict[str, Any], master: str) -> Identity:
        """Check what the master signed and put it in place; the node's certificate last."""
        assert self._ca is not None
        cert = _text(answer, "certificate").encode()
        reader = str(answer.get("reader_certificate", "")).encode() if self._reader else b""
        try:
            # Over TLS with the CA that is trusted: it may name another beside it.
            ca = b"".join(pki.authorities(str(answer.get("ca") or self._ca.decode()).encode()))
            pool = pki.verify(ca, cert, self._key, self._name)
            if self._reader:
                pki.verify(ca, reader, self._reader, "reader", what="the reader's certificate")
        except BadInput as error:
            raise NodeError(f"the master {self._where} sent what does not fit: {error}") from None
        files.write(self._state / CA_CERT, ca, 0o644)
        if self._reader:
            files.write(self._state / READER_CERT, reader, 0o644)
        files.write(self._state / MASTER_NAME, f"{master}\n".encode(), 0o644)
        files.write(self._state / NODE_CERT, cert, 0o644)
        self._say(
            f"admitted to pool {pool} by {master} as {self._name}, CA {pki.fingerprint(self._ca)},"
            f" key {pki.fingerprint(pki.public_key(self._key))}"
        )
        return Identity(pool, self._role, self._node, master)


def _key(path: Path, mode: int = 0o600) -> bytes:
    """The key at `path`, made if there is none. Raises BadInput."""
    if not path.exists():
        files.write(path, pki.new_key(), mode)
    pem = files.read(path, "the private key")
    if mode == 0o600:
        pki.check_key(path, pem)
    return pem


def _context(ca: bytes | None) -> ssl.SSLContext:
    """TLS that believes this CA alone; without one, anybody: only to learn which CA there is."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    # By which name or address a node calls its master is not in the certificate; that it is a
    # master's, by the pool's CA, is checked instead.
    context.check_hostname = False
    if ca is None:
        context.verify_mode = ssl.CERT_NONE
    else:
        context.load_verify_locations(cadata=ca.decode())
    return context


def _master_name(sock: Any, where: str) -> str:
    """The host name of the master at the other end. Raises NodeError if it is no master."""
    cert = ssl.DER_cert_to_PEM_cert(sock.getpeercert(binary_form=True)).encode()
    name = pki.common_name(cert)
    node = name.removeprefix(IDENTITY_PREFIX["master"])
    if node == name or not pki.NODE_PATTERN.fullmatch(node):
        raise NodeError(
            f"{where} is {line(name)!r} of this pool, not a master; check the address given"
        )
    return node


def _reason(error: Exception, port: int) -> str:
    """Why there is no answer, for people who wait."""
    if isinstance(error, ssl.SSLError) and error.reason and "EOF" not in error.reason:
        return f"what answers there does not speak TLS 1.3 ({error.reason})"
    for kind, reason in (
        (socket.gaierror, "its name does not resolve yet"),
        (ConnectionRefusedError, f"nothing listens on port {port} there yet"),
        (TimeoutError, "it does not answer yet"),
        ((ConnectionError, ssl.SSLError), "it hung up"),
    ):
        if isinstance(error, kind):
            return reason
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return "what answers there is not a roost master"


def _pauses(first: float) -> Iterator[float]:
    """Seconds between attempts: a master that starts is found soon, one that is away is spared."""
    pause = first / 4
    while True:
        yield pause
        pause = min(pause * 1.3, 3 * first)


def _unless(stop: threading.Event, call: Callable[[], T]) -> T:
    """`call()`, left alone when `stop` is set: looking up a name cannot be interrupted."""
    done = threading.Event()
    results: list[T] = []
    errors: list[Exception] = []

    def run() -> None:
        try:
            results.append(call())
        except Exception as error:  # noqa: BLE001 - handed over, not swallowed
            errors.append(error)
        done.set()

    threading.Thread(target=run, daemon=True).start()
    while not done.wait(0.1):
        if stop.is_set():
            raise Stopped("asked to stop while waiting to be admitted")
    if errors:
        raise errors[0]
    return results[0]


def _text(answer: dict[str, Any], field: str) -> str:
    value = answer.get(field)
    if not isinstance(value, str):
        raise NotYet("what answers there is not a roost master")
    return value


def line(text: object) -> str:
    """What somebody else wrote, as part of one line of a log."""
    return re.sub(r"[^ -~…]+", " ", str(text))[:300]
