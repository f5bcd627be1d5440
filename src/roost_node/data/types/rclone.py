"""Whatever rclone reaches: S3, WebDAV, SFTP, HTTP and others.

What is written is kept in a cache on the node's disk and uploaded when a file is closed, so that
programs may write as they like. The job is not done before all of it is uploaded.
"""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Final

from roost_node.data import credential
from roost_node.data.shape import Refused, Request, Server

PROGRAM: Final = "rclone"

_REMOTE: Final = "data"
_FAILED: Final = "item close failed: vfs cache: failed to transfer file from cache to remote: "


def server(request: Request) -> Server:
    """`rclone mount`, with a configuration that has this remote alone."""
    options = request.entry.options
    lines = [f"[{_REMOTE}]", f"type = {options['backend']}"]
    lines += [f"{key} = {value}" for key, value in options.get("options", {}).items()]
    if request.token is not None:
        lines += _secret_options(credential.read(request.token))
    config = request.work / "rclone.conf"
    config.touch(mode=0o600)
    config.write_text("\n".join(lines) + "\n")
    mode = ["--vfs-cache-mode", "writes", "--vfs-write-back", "0s"] if request.write else [
        "--read-only", "--vfs-cache-mode", "off"]  # fmt: skip
    return Server(
        (PROGRAM, "mount", f"{_REMOTE}:{options.get('path', '')}", str(request.directory),
         "--config", str(config), "--devname", request.entry.name, "--log-format", "",
         "--cache-dir", str(request.disk), *mode,
         "--contimeout", "10s", "--poll-interval", "0", "--retries", "3",
         "--low-level-retries", "3"),
        opens=True,
    )  # fmt: skip


def _secret_options(text: str) -> list[str]:
    """The token's lines, `key = value` as in rclone.conf. Raises Refused."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if any("=" not in line or line.startswith("[") for line in lines):
        raise Refused("its token is not made of lines `key = value`, as rclone.conf has them")
    return lines


def unwritten(request: Request) -> str:
    """A file that is in the cache and not yet uploaded. Raises Refused if it never will be.

    rclone uploads a file once when it is closed; what failed then stays in the cache.
    """
    root = request.disk / "vfsMeta"
    waiting = []
    for path in root.rglob("*"):
        with suppress(OSError, ValueError):
            if path.is_file() and json.loads(path.read_text()).get("Dirty"):
                waiting.append("/".join(path.relative_to(root).parts[1:]))
    if not waiting:
        return ""
    with suppress(OSError):
        log = (request.work / "log").read_text(errors="replace")
        failures = [line for line in log.splitlines() if _FAILED in line]
        if len(failures) >= len(waiting):
            raise Refused(f"{waiting[0]} is not uploaded: {failures[-1].rpartition(_FAILED)[2]}")
    return f"{waiting[0]} is not uploaded"
