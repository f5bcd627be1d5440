"""A port of this machine that leads to one of a node, through the engine: no network is needed."""

from __future__ import annotations

import socket
import threading
from collections.abc import Sequence
from contextlib import suppress

from roost._run import Piped


class Tunnel:
    """Listens on this machine alone; each connection is a command of the engine's own."""

    def __init__(self, command: Sequence[str]) -> None:
        self._command = command
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        self._through: list[Piped] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return  # it was closed
            with connection:  # the command has it then
                self._through.append(Piped(self._command, both=connection.fileno()))

    def close(self) -> None:
        """Close the port and what goes through it."""
        with suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        for each in self._through:
            each.end()
