"""Mounts of type `onedata`: by the vendor's oneclient if the image has it, else by our own server.

The vendor has no package of oneclient for the Debian that images stand on; what is here follows its
documentation and was never run.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from roost_node.data import credential
from roost_node.data.entries import token_name
from roost_node.data.shape import Entry, Refused, Request, Server

#: Ours; an image built with `onedata` has it.
SERVER: Final = "roost-onedata"
#: Its memory is the job's; its threads share what they have read and handed on.
_FRUGAL: Final = {"MALLOC_ARENA_MAX": "2"}
PROGRAM: Final = "oneclient" if shutil.which("oneclient") else SERVER


def server(request: Request) -> Server:
    """What to run. Raises Refused."""
    if request.token is None:
        raise Refused(f"it needs a token; store yours with `roost data login {request.entry.name}`")
    asked = told(
        request.entry, request.token, request.work, write=request.write, target=request.target
    )
    if PROGRAM == "oneclient":
        return _oneclient(request, asked)
    file = request.work / "request.json"
    file.write_text(json.dumps(asked))
    return Server((SERVER, str(file)), _FRUGAL)


def told(entry: Entry, token: Path, work: Path, *, write: bool, target: str) -> Mapping[str, Any]:
    """What our server reads: nothing of it is secret, the token stands in HTCondor's file."""
    options = entry.options
    return {
        "name": token_name(entry),
        "host": options["host"],
        "space": options.get("space") or entry.name,
        "path": options.get("path", ""),
        "timeout": options.get("timeout", 30),
        "authorities": _authorities(options.get("ca"), work),
        "token": str(token),
        "write": write,
        "target": target,
    }


def _authorities(pem: str | None, work: Path) -> str:
    """The file of the CAs that are believed; empty: the image's."""
    if not pem:
        return ""
    directory = work / "authorities"
    directory.mkdir(exist_ok=True)
    file = directory / "ca.pem"
    file.write_text(pem)
    return str(file)


def _oneclient(request: Request, asked: Mapping[str, Any]) -> Server:
    """The vendor's client, by the names that its options have today.

    It shows the space as a directory in the mount, and nothing less than a space.
    """
    from roost_node.data.onedata import zone

    if asked["path"]:
        raise Refused("oneclient mounts whole spaces; remove `path`, or use an image without it")
    secret = credential.read(Path(asked["token"]))
    authorities = asked["authorities"]
    scope = zone.ask(asked["host"], secret, authorities)
    found = zone.space(scope, asked["space"])
    online = [provider.domain for provider in found.providers if provider.online]
    host, _, port = (scope.preferred if scope.preferred in online else online[0]).partition(":")
    # Everybody on a machine can read a command line: the token is in the environment.
    env = {"ONECLIENT_ACCESS_TOKEN": secret, "ONECLIENT_LOG_DIR": str(request.work)}
    argv = ["oneclient", "--foreground", "--host", host, "--port", port or "443",
            "--space-id", found.id]  # fmt: skip
    argv += ["--custom-ca-dir", str(Path(authorities).parent)] if authorities else []
    argv += [] if request.write else ["-o", "ro"]
    return Server((*argv, str(request.directory)), env, opens=True)
