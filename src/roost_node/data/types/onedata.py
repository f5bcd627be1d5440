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

from roost_node.data.shape import Refused, Request, Server

#: Ours; an image built with `onedata` has it.
SERVER: Final = "roost-onedata"
PROGRAM: Final = "oneclient" if shutil.which("oneclient") else SERVER


def server(request: Request) -> Server:
    """What to run. Raises Refused."""
    if request.token is None:
        raise Refused(f"it needs a token; store yours with `roost data login {request.entry.name}`")
    authorities = _authorities(request)
    if PROGRAM == "oneclient":
        return _oneclient(request, request.token, authorities)
    asked = request.work / "request.json"
    asked.write_text(json.dumps(told(request, request.token, authorities)))
    return Server((SERVER, str(asked)))


def told(request: Request, token: Path, authorities: str) -> Mapping[str, Any]:
    """What our server reads: nothing of it is secret, the token stands in HTCondor's file."""
    options = request.entry.options
    return {
        "host": options["host"],
        "space": options.get("space") or request.entry.name,
        "path": options.get("path", ""),
        "timeout": options.get("timeout", 30),
        "authorities": authorities,
        "token": str(token),
        "write": request.write,
        "target": request.target,
    }


def _authorities(request: Request) -> str:
    """The file of the CAs that are believed; empty: the image's."""
    text = request.entry.options.get("ca")
    if not text:
        return ""
    directory = request.work / "authorities"
    directory.mkdir(exist_ok=True)
    file = directory / "ca.pem"
    file.write_text(str(text))
    return str(file)


def _oneclient(request: Request, token: Path, authorities: str) -> Server:
    """The vendor's client, by the names that its options have today.

    It shows the space as a directory in the mount, and nothing less than a space.
    """
    from roost_node.data.onedata import zone

    asked = told(request, token, authorities)
    if asked["path"]:
        raise Refused("oneclient mounts whole spaces; remove `path`, or use an image without it")
    try:
        secret = str(json.loads(token.read_text())["access_token"])
    except (OSError, ValueError, KeyError, TypeError):
        raise Refused("its token cannot be read") from None
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
