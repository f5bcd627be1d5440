"""A directory of the machine that the node runs on: `roost up` has it in the container."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from roost_node.data.shape import Entry, Refused, Request, Server
from roost_node.vocab import BIND_DIR

PROGRAM: Final = ""


def place(entry: Entry) -> Path:
    """Where the node has it."""
    return Path(BIND_DIR, entry.name)


def server(request: Request) -> Server:
    """No server: the directory itself."""
    source = place(request.entry)
    if not source.is_dir():
        raise Refused(f"this node has no {source}; `roost up` puts it there")
    return Server((), source=source)
