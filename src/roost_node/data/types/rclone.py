"""Whatever rclone reaches: S3, WebDAV, SFTP, HTTP and others.

What is written is kept in a cache on the node's disk and uploaded a second after a file is closed,
so that programs may write as they like. The job is not done before all of it is uploaded. (With a
delay of 0 rclone 1.60 uploads at once, and a file that is renamed meanwhile keeps its old name.)
"""

from __future__ import annotations

import json
import re
from contextlib import suppress
from typing import Final

from roost_node.data import credential
from roost_node.data.shape import Refused, Request, Server

PROGRAM: Final = "rclone"

_REMOTE: Final = "data"
_FAILED: Final = re.compile(r"ERROR : (.+): vfs cache: failed to upload try #(\d+), .*remote: (.*)")
#: It tries anew after 2, 4, 8 s and so on: an outage of a quarter of a minute costs nothing.
_TRIES: Final = 4


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
    mode = ["--vfs-cache-mode", "writes", "--vfs-write-back", "1s"] if request.write else [
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
    """A file that is in the cache and not yet uploaded. Raises Refused once it was tried enough."""
    root = request.disk / "vfsMeta"
    waiting = []
    for path in root.rglob("*"):
        with suppress(OSError, ValueError):
            if path.is_file() and json.loads(path.read_text()).get("Dirty"):
                waiting.append("/".join(path.relative_to(root).parts[1:]))
    if not waiting:
        return ""
    tried: dict[str, str] = {}
    with suppress(OSError):
        for line in (request.work / "log").read_text(errors="replace").splitlines():
            if (failed := _FAILED.search(line)) and int(failed[2]) >= _TRIES:
                tried[failed[1]] = failed[3]
    # The cache has the remote's own path in front of a file's name, the log has not.
    told = [next((why for name, why in tried.items() if path.endswith(name)), "")
            for path in waiting]  # fmt: skip
    if all(told):
        raise Refused(f"{waiting[0]} is not uploaded: {told[0]}")
    return f"{waiting[0]} is not uploaded"
