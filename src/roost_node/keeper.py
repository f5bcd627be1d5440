"""When `roost-node renew` has something to do: this node's certificate is due, or the master has
announced something new. Only looks, and cheaply: supervisord's process imports this."""

from __future__ import annotations

import os
import socket
import threading
import time

from roost_node.vocab import ADMIT_PORT, DUE, MASTERS_NOTICE, NEW_NOTICE, NOTICE, REVOKED

TYPE_CHECKING = False  # typing itself would cost every container a MiB
if TYPE_CHECKING:
    from typing import Final

#: What supervisord calls `roost-node renew`.
PROGRAM: Final = "renew"
#: Seconds between two looks at the master's notice.
LOOK: Final = 20.0
#: Seconds before `roost-node renew` is started again for what it could not do.
REST: Final = 10.0
#: A notice that was turned down is looked at again after this.
AGAIN: Final = 60.0
#: More than any notice, in bytes.
_LARGEST: Final = 2**20


class Keeper:
    """Of one node. `state` is its state directory."""

    def __init__(self, state: str, *, master: bool) -> None:
        self._state = state
        self._master = master
        self._next_look = 0.0
        self._rest = 0.0
        self._offered = (b"", float("-inf"))
        self._news = False
        self._thread: threading.Thread | None = None

    def wants(self, address: str) -> bool:
        """Whether `roost-node renew` should run now; `address` is the master's."""
        now = time.monotonic()
        if now >= self._next_look and not (self._thread and self._thread.is_alive()):
            self._next_look = now + LOOK
            self._thread = threading.Thread(target=self._look, args=(address,), daemon=True)
            self._thread.start()
        if now < self._rest or not (self._news or self._due()):
            return False
        self._news = False
        self._rest = now + REST
        return True

    def revoked(self) -> str:
        """Why this node must end, if it is revoked."""
        return _read(f"{self._state}/{REVOKED}").decode(errors="replace").strip()

    def _due(self) -> bool:
        try:
            return float(_read(f"{self._state}/{DUE}") or "inf") <= time.time()
        except ValueError:
            return True

    def _look(self, address: str) -> None:
        try:
            raw = _read(f"{self._state}/{MASTERS_NOTICE}") if self._master else fetch(address)
        except OSError:
            return  # the master is away: what was known goes on
        now = time.monotonic()
        offered, when = self._offered
        if not raw or raw == _read(f"{self._state}/{NOTICE}"):
            return
        if raw == offered and now - when < AGAIN:
            return
        with open(f"{NEW_NOTICE}.tmp", "wb") as file:
            file.write(raw)
        os.replace(f"{NEW_NOTICE}.tmp", NEW_NOTICE)
        self._offered = (raw, now)
        self._news = True


def fetch(address: str, port: int = ADMIT_PORT, path: str = "/v1/notice") -> bytes:
    """The master's notice, or what else it says to everybody, unjudged; empty if it has none.

    Raises OSError.
    """
    until = time.monotonic() + 5
    with socket.create_connection((address, port), timeout=5) as there:
        there.sendall(f"GET {path} HTTP/1.0\r\n\r\n".encode())
        said = b""
        while time.monotonic() < until and len(said) < _LARGEST:
            chunk = there.recv(65536)
            if not chunk:
                break
            said += chunk
    head, _, body = said.partition(b"\r\n\r\n")
    words = head.split(b" ", 2)
    return body if len(words) == 3 and words[1] == b"200" else b""


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(_LARGEST)
    except OSError:
        return b""
