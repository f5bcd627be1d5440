"""Port 9619 of the master: the TLS and HTTP around roost_node.register.

    GET  /v1/ca     the pool's CA certificate, for a node that compares it with its join token
    POST /v1/join   {role, node, csr, token?, reader_csr?}
                    200 {certificate, ca, pool, master, reader_certificate?}
                    202 {id, fingerprint, message}: ask again
                    400 | 403 | 413 | 429 | 500 | 503 {error}
    POST /v1/renew  {role, node, csr, certificate, signature, number?, reader_csr?}
                    200 as above, or an error

and, without TLS, because it is signed itself and every node asks for it every 20 s:

    GET  /v1/notice what the master announced last (notice.py)
    GET  /v1/address    from which address the master is asked: a node behind NAT learns that so

Anybody may connect, so everything is bounded: connections, bytes, time, requests an address. Most
pools never admit anybody by this door: what costs memory (TLS, certificates: 19 MiB) is loaded when
somebody first knocks.
"""

from __future__ import annotations

import json
import select
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from roost_node import files
from roost_node.errors import NodeError
from roost_node.vocab import ADMIT_PORT, CA_CERT, CA_KEY, MASTERS_NOTICE, NODE_CERT, NODE_KEY

if TYPE_CHECKING:
    import ssl

    from roost_node.register import Admissions, Reply

Say = Callable[[str], None]

MAX_HEAD: Final = 4 * 1024
MAX_BODY: Final = 16 * 1024

#: Seconds between two lines of the log about refusals of one address: knocking is cheaper.
_QUIET: Final = 60.0
#: Addresses that are remembered.
_ADDRESSES: Final = 4096


@dataclass(frozen=True)
class Limits:
    """How much a stranger may have."""

    connections: int = 32
    """At a time; half of them for one address."""
    seconds: float = 10.0
    """From a connection to its end."""
    burst: int = 100
    """Requests of one address at once …"""
    rate: float = 20.0
    """… and per second after that. Many nodes may share an address behind an engine's port."""


def listen(address: str = "", port: int = ADMIT_PORT) -> socket.socket:
    """A listening socket; all addresses if `address` is empty. Raises NodeError."""
    dual = not address and socket.has_dualstack_ipv6()
    try:
        if dual:
            try:
                return socket.create_server(
                    ("", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=128
                )
            except OSError:  # the kernel knows IPv6, the container's network does not
                pass
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        return socket.create_server((address, port), family=family, backlog=128)
    except OSError as error:
        raise NodeError(f"cannot listen on port {port} to admit nodes: {error.strerror}") from None


def serve(
    state_dir: Path,
    address: str = "",
    port: int = ADMIT_PORT,
    *,
    say: Say = lambda line: print(line, flush=True),
    listener: socket.socket | None = None,
    stop: threading.Event | None = None,
    limits: Limits | None = None,
) -> int:
    """Admit nodes until `stop`, for ever without one; returns 0.

    Listens on `address` and `port`, unless there is a `listener` already. Raises NodeError.
    """
    door = _Door(state_dir, say, limits or Limits())
    with listener or listen(address, port) as bound:
        # Not blocking: whoever knocked may be gone before accept.
        bound.setblocking(False)
        while not (stop and stop.is_set()):
            ready, _, _ = select.select([bound], [], [], 0.05 if stop else None)
            if not ready:
                continue
            for name in (CA_CERT, CA_KEY, NODE_CERT, NODE_KEY):
                files.read(state_dir / name, "the master's own")
            try:
                connection, peer = bound.accept()
            except OSError:
                # Also when no descriptor is left: then wait for one, do not spin.
                time.sleep(0.05)
                continue
            door.answer(connection, _plain(peer[0]))
    return 0


class _Refusal(Exception):
    """A request that is not answered as asked: HTTP status and why."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


class _Door:
    """Who is in, and who has knocked how often."""

    def __init__(self, state_dir: Path, say: Say, limits: Limits) -> None:
        self._state = state_dir
        self._say = say
        self._limits = limits
        self._admissions: Admissions | None = None
        self._tls: ssl.SSLContext | None = None
        self._certificate: object = None
        self._lock = threading.Lock()
        self._opening = threading.Lock()
        self._inside: Counter[str] = Counter()
        self._buckets: dict[str, tuple[float, float]] = {}
        self._warned: dict[str, float] = {}

    def _open(self) -> tuple[ssl.SSLContext, Admissions]:
        """What TLS and decisions need, with the certificate that the master has now."""
        import ssl

        from roost_node.register import Admissions

        with self._opening:
            try:
                there = (self._state / NODE_CERT).stat()
                certificate = (there.st_ino, there.st_mtime_ns)
                if self._tls is None or certificate != self._certificate:
                    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
                    tls.minimum_version = ssl.TLSVersion.TLSv1_3
                    tls.load_cert_chain(self._state / NODE_CERT, self._state / NODE_KEY)
                    self._tls, self._certificate = tls, certificate
            except OSError as error:
                raise NodeError(
                    f"the master's own certificate in {self._state} cannot be used: {error}"
                ) from None
            if self._admissions is None:
                self._admissions = Admissions(self._state)
            return self._tls, self._admissions

    def answer(self, connection: socket.socket, address: str) -> None:
        """Answer one connection in a thread of its own, if there is room for it."""
        with self._lock:
            room = self._inside.total() < self._limits.connections and self._inside[address] < max(
                1, self._limits.connections // 2
            )
            if room:
                self._inside[address] += 1
        if not room:
            connection.close()
            self._refused(address, "hung up on, too many connections")
            return
        threading.Thread(target=self._attend, args=(connection, address), daemon=True).start()

    def _attend(self, connection: socket.socket, address: str) -> None:
        deadline = time.monotonic() + self._limits.seconds
        try:
            with connection:
                connection.settimeout(self._limits.seconds / 2)
                try:
                    # A TLS connection begins with 0x16.
                    if connection.recv(1, socket.MSG_PEEK) == b"G":
                        self._tell(connection, address, deadline)
                        return
                    context, admissions = self._open()
                    with context.wrap_socket(connection, server_side=True) as tls:
                        self._converse(tls, admissions, address, deadline)
                except TimeoutError:
                    self._refused(address, "hung up on, too slow")
                except OSError as error:
                    # TLS that did not come about is an OSError with a reason of its own.
                    if why := getattr(error, "reason", None):
                        self._refused(address, f"speaks no TLS that counts here ({why})")
        except NodeError as error:
            self._say(f"{address}: cannot be answered: {error}")
        finally:
            with self._lock:
                self._inside[address] -= 1
                self._inside += Counter()  # drops the zeros

    def _tell(self, connection: socket.socket, address: str, deadline: float) -> None:
        """The notice, to whoever asks in the clear: nothing in it is secret."""
        try:
            status, body = self._told(*_read_request(connection, deadline)[:2], address)
        except _Refusal as refusal:
            status, body = refusal.status, json.dumps({"error": str(refusal)}).encode()
            self._refused(address, f"refused, {status}: {refusal}")
        _send(connection, status, body, deadline)

    def _told(self, method: str, path: str, address: str) -> tuple[int, bytes]:
        if not self._in_time(address):
            raise _Refusal(429, "too many requests from this address; ask again later")
        if (method, path) == ("GET", "/v1/address"):
            return 200, address.encode()
        if (method, path) != ("GET", "/v1/notice"):
            raise _Refusal(
                404, "there are GET /v1/notice and GET /v1/address here; all else takes TLS"
            )
        try:
            return 200, (self._state / MASTERS_NOTICE).read_bytes()
        except FileNotFoundError:
            return 204, b""

    def _converse(
        self, tls: ssl.SSLSocket, admissions: Admissions, address: str, deadline: float
    ) -> None:
        answer: dict[str, str]
        try:
            status, answer = self._route(admissions, *_read_request(tls, deadline), address)
        except _Refusal as refusal:
            status, answer = refusal.status, {"error": str(refusal)}
            self._refused(address, f"refused, {status}: {refusal}")
        _send(tls, status, json.dumps(answer).encode(), deadline)

    def _route(
        self, admissions: Admissions, method: str, path: str, body: bytes, address: str
    ) -> tuple[int, dict[str, str]]:
        if not self._in_time(address):
            raise _Refusal(429, "too many requests from this address; ask again later")
        if (method, path) == ("GET", "/v1/ca"):
            return 200, {"ca": admissions.ca_cert.decode()}
        ways = {"/v1/join": admissions.request, "/v1/renew": admissions.renew}
        if method != "POST" or path not in ways:
            raise _Refusal(404, "there is GET /v1/ca and POST /v1/join here, nothing else")
        try:
            asked: Any = json.loads(body)
        except (ValueError, RecursionError):
            asked = None
        if not isinstance(asked, dict):
            raise _Refusal(400, "the request is not a JSON object")
        try:
            reply: Reply = ways[path](asked, address, self._say)
        except (NodeError, OSError) as error:
            self._say(f"{address}: cannot decide: {error}")
            raise _Refusal(500, "the master cannot decide now; its log says why") from None
        return reply.status, reply.body

    def _refused(self, address: str, why: str) -> None:
        """Log the first refusal of an address in a minute."""
        now = time.monotonic()
        with self._lock:
            if now - self._warned.get(address, float("-inf")) < _QUIET:
                return
            self._warned.pop(address, None)
            if len(self._warned) >= _ADDRESSES:
                del self._warned[next(iter(self._warned))]
            self._warned[address] = now
        self._say(f"{address}: {why}; more within a minute is not logged")

    def _in_time(self, address: str) -> bool:
        """Take one request out of the address's bucket, if there is one in it."""
        now = time.monotonic()
        with self._lock:
            left, seen = self._buckets.pop(address, (float(self._limits.burst), now))
            left = min(self._limits.burst, left + (now - seen) * self._limits.rate)
            if len(self._buckets) >= _ADDRESSES:
                del self._buckets[next(iter(self._buckets))]
            self._buckets[address] = (max(0.0, left - 1), now)
        return left >= 1


def _read_request(tls: socket.socket, deadline: float) -> tuple[str, str, bytes]:
    """Method, path and body. Raises _Refusal, or OSError when there is nobody to tell."""
    received = b""
    while b"\r\n\r\n" not in received:
        if len(received) > MAX_HEAD:
            raise _Refusal(413, "the head of the request is too long")
        received += _receive(tls, deadline)
    head, _, body = received.partition(b"\r\n\r\n")
    lines = head.decode("latin-1").split("\r\n")
    words = lines[0].split(" ")
    if len(words) != 3 or not words[2].startswith("HTTP/1."):
        raise _Refusal(400, "the request is not HTTP/1.1")
    headers = [(name.strip().lower(), value.strip()) for name, _, value in
               (line.partition(":") for line in lines[1:])]  # fmt: skip
    lengths = [value for name, value in headers if name == "content-length"] or ["0"]
    if len(lengths) > 1 or not (lengths[0].isascii() and lengths[0].isdigit()) or any(
        name == "transfer-encoding" for name, _ in headers
    ):  # fmt: skip
        raise _Refusal(400, "the request needs one Content-Length")
    if len(lengths[0]) > 9 or (length := int(lengths[0])) > MAX_BODY:
        raise _Refusal(413, f"a request has at most {MAX_BODY // 1024} KiB")
    while len(body) < length:
        body += _receive(tls, deadline)
    return words[0], words[1], body[:length]


def _receive(tls: socket.socket, deadline: float) -> bytes:
    remaining = deadline - time.monotonic()
    if remaining <= 0:
        raise TimeoutError
    tls.settimeout(remaining)
    chunk = tls.recv(8192)
    if not chunk:
        raise ConnectionResetError
    return chunk


def _send(tls: socket.socket, status: int, body: bytes, deadline: float) -> None:
    head = (
        f"HTTP/1.1 {status} {'OK' if status < 300 else 'No'}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    tls.settimeout(max(0.1, deadline - time.monotonic()))
    tls.sendall(head.encode() + body)
    # What is left of a request that was too long is read a little further: closing at once would
    # reset the connection, and the answer would be lost with it.
    tls.shutdown(socket.SHUT_WR)
    drained = 0
    while drained < 8 * MAX_BODY and time.monotonic() < deadline:
        tls.settimeout(1.0)
        if not (chunk := tls.recv(8192)):
            return
        drained += len(chunk)


def _plain(address: str) -> str:
    """An address without what a dual-stack socket adds to it."""
    return address.removeprefix("::ffff:").partition("%")[0]
