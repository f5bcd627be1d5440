"""`fusermount3` and `fusermount` in a job's world: asks the world's keeper to mount.

Every FUSE client has one of them mount for it and hand back the device (`_FUSE_COMMFD`). Theirs is
set-uid root; nothing in a node is. Whoever asks is the job itself or a server of its mounts: both
see the same mounts, and nobody else does.
"""

from __future__ import annotations

import array
import getopt
import json
import os
import socket
import sys
from collections.abc import Sequence
from typing import Any, Final

from roost_node.data.kernel import WORK

SOCKET: Final = WORK / "mount"
_VERSION: Final = "fusermount3 version: 3.17 (roost)"


def main(argv: Sequence[str], env: dict[str, str] | os._Environ[str]) -> int:
    """Mount or unmount; the exit status."""
    try:
        options, places = getopt.gnu_getopt(argv, "uzqVhvo:", ["auto-unmount", "version", "help"])
    except getopt.GetoptError as error:
        return _fail(str(error))
    flags = {name for name, _ in options}
    if flags & {"-V", "--version"}:
        print(_VERSION)
        return 0
    if len(places) != 1:
        return _fail("say where: fusermount3 [-u] DIRECTORY")
    place = os.path.abspath(places[0])  # noqa: PTH100 - a link stays
    if "-u" in flags:
        return _answered(_ask({"unmount": place, "lazy": "-z" in flags})[0])
    words = [word for name, value in options if name == "-o" for word in value.split(",")]
    if "_FUSE_COMMFD" not in env:
        return _fail("a FUSE client calls this, with _FUSE_COMMFD")
    answer, device = _ask({"mount": place, "options": words})
    if device >= 0:
        with socket.socket(fileno=int(env["_FUSE_COMMFD"])) as client:
            socket.send_fds(client, [b"\0"], [device])
    return _answered(answer)


def _ask(request: dict[str, Any]) -> tuple[str, int]:
    """What is wrong, if anything, and the device's descriptor, if it has one."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as keeper:
        try:
            keeper.connect(str(SOCKET))
        except OSError:
            return "only a job that asks for mounts can mount: +PrivateMounts = true", -1
        keeper.send(json.dumps(request).encode())
        answer, ancillary, _, _ = keeper.recvmsg(4096, socket.CMSG_SPACE(4))
    devices = array.array("i")
    for _, _, data in ancillary:
        devices.frombytes(data[:4])
    return answer.decode().strip(), devices[0] if devices else -1


def _answered(problem: str) -> int:
    return _fail(problem) if problem else 0


def _fail(problem: str) -> int:
    print(f"fusermount3: {problem}", file=sys.stderr)
    return 1
