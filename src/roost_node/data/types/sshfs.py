"""A directory on an SSH server."""

from __future__ import annotations

import os
from typing import Final

from roost_node.data import credential
from roost_node.data.shape import Request, Server

PROGRAM: Final = "sshfs"
#: What it says when ssh has said why it ended.
NOISE: Final = (
    "read: Connection reset by peer",
    "write: Broken pipe",
    "remote host has disconnected",
)


def server(request: Request) -> Server:
    """`sshfs`, which believes no other key than the one in the pool file."""
    options = request.entry.options
    host, _, port = options["host"].partition(":")
    known = request.work / "known_hosts"
    name = host if port in ("", "22") else f"[{host}]:{port}"
    known.write_text(f"{name} {options['host_key']}\n")
    words = {
        "ssh_command": "ssh -F /dev/null",
        "UserKnownHostsFile": str(known),
        "GlobalKnownHostsFile": "/dev/null",
        "StrictHostKeyChecking": "yes",
        "BatchMode": "yes",
        "ConnectTimeout": "10",
        # A server that vanished is noticed within half a minute, and readers get an error.
        "ServerAliveInterval": "10",
        "ServerAliveCountMax": "3",
        # What belongs to the account there belongs to the job here.
        "idmap": "user",
        "uid": str(os.getuid()),
        "gid": str(os.getgid()),
        **options.get("options", {}),
    }
    if port:
        words["port"] = port
    if request.token is not None:
        key = request.work / "key"
        key.touch(mode=0o600)
        key.write_text(credential.read(request.token).strip() + "\n")
        words |= {"IdentityFile": str(key), "IdentitiesOnly": "yes"}
    flags = [] if request.write else ["ro"]
    given = [*flags, *(f"{name}={value}" for name, value in words.items())]
    return Server(
        (PROGRAM, "-f", f"{options['user']}@{host}:{options.get('path', '')}", request.target,
         "-o", ",".join(given)),
    )  # fmt: skip
