"""A master that admits nodes, on loopback, for the tests of both sides."""

from __future__ import annotations

import http.client
import json
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from roost_node import admit, pki
from roost_node.register import Admissions, ensure_ca


class Master:
    """Its state, its log and its port; `running()` opens the port, again and again if need be."""

    def __init__(self, state: Path, pool: str = "physics", node: str = "m1") -> None:
        state.mkdir(exist_ok=True)
        self.state = state
        self.log: list[str] = []
        ensure_ca(state, pool, node, self.log.append)
        self.port = 0

    @property
    def admissions(self) -> Admissions:
        return Admissions(self.state)

    @property
    def ca(self) -> bytes:
        return (self.state / "ca.crt").read_bytes()

    @contextmanager
    def running(self, limits: admit.Limits | None = None) -> Iterator[None]:
        stop = threading.Event()
        listener = admit.listen("127.0.0.1", self.port)
        self.port = listener.getsockname()[1]
        thread = threading.Thread(
            target=admit.serve,
            args=(self.state,),
            kwargs={
                "say": self.log.append, "listener": listener, "stop": stop, "limits": limits,
            },
        )  # fmt: skip
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join(10)
            assert not thread.is_alive()

    def connect(self) -> ssl.SSLSocket:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(cadata=self.ca.decode())
        plain = socket.create_connection(("127.0.0.1", self.port), timeout=10)
        return context.wrap_socket(plain, server_hostname="m1")

    def send(self, raw: bytes) -> tuple[int, dict[str, Any]]:
        """The answer to these very bytes."""
        with self.connect() as tls:
            tls.sendall(raw)
            return answer(tls)

    def ask(self, **asked: Any) -> tuple[int, dict[str, Any]]:
        """The answer to a request for admission."""
        return self.post(json.dumps(asked).encode())

    def post(self, body: bytes) -> tuple[int, dict[str, Any]]:
        head = f"POST /v1/join HTTP/1.1\r\nHost: m1\r\nContent-Length: {len(body)}\r\n\r\n"
        return self.send(head.encode() + body)


def answer(tls: ssl.SSLSocket) -> tuple[int, dict[str, Any]]:
    with http.client.HTTPResponse(tls) as response:
        response.begin()
        body = json.loads(response.read())
        assert isinstance(body, dict)
        return response.status, body


class Candidate:
    """A node's key, and what it asks with it."""

    def __init__(self, node: str = "ex1", role: str = "execute") -> None:
        self.node, self.role = node, role
        self.key = pki.new_key()

    def asked(self, token: str | None = None) -> dict[str, str]:
        request = {
            "role": self.role,
            "node": self.node,
            "csr": pki.csr(self.key, "whatever").decode(),
        }
        return request | ({"token": token} if token else {})

    @property
    def id(self) -> str:
        assert self.role in ("submit", "execute")
        return pki.request_id("submit" if self.role == "submit" else "execute", self.node, self.key)


def secrets_in(log: list[str], *more: Any) -> list[str]:
    """Lines that show a key or a token, or any of `more`."""
    marks = ["BEGIN", "PRIVATE", "roost-join.v1.e", *(str(secret) for secret in more)]
    return [line for line in log if "\n" in line or any(mark in line for mark in marks)]
