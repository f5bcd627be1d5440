"""Can a job mount here? Tried, as a job would, before the node says that it can.

python3 -IS -c '… main()'        as a slot's account; one sentence if not, nothing if so
"""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path
from typing import Final

from roost_node.data import kernel

_CALL: Final = (
    "import sys; sys.path[:0] = [{path!r}]; from roost_node.data.probe import main; main()"
)


def problem(uid: int, gid: int) -> str:
    """Why jobs cannot mount on this node, in one sentence; empty if they can."""
    if not kernel.FUSE.exists():
        return "the container has no /dev/fuse; give it one with `--device /dev/fuse`"
    kernel.WORK.mkdir(parents=True, exist_ok=True)
    mode = kernel.FUSE.stat().st_mode
    if mode & 0o666 != 0o666:  # as the machine has it: often root's alone
        try:
            kernel.FUSE.chmod(0o666)
        except OSError:
            return "/dev/fuse is for root alone, and its mode cannot be changed"
    code = _CALL.format(path=str(Path(__file__).parents[2]))
    done = subprocess.run(
        [sys.executable, "-IS", "-c", code], user=uid, group=gid, extra_groups=[], timeout=60,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    return done.stdout.strip() or (done.stderr.strip().splitlines() or [""])[-1]


def main() -> None:
    """Try it in this process; print what is wrong."""
    try:
        kernel.enter()
    except OSError as error:
        print(advice(error.errno or 0, str(error.filename)))
        return
    child = os.fork()
    if child == 0:
        _mount()
        sys.stdout.flush()
        os._exit(0)
    os.waitpid(child, 0)


def _mount() -> None:
    try:
        kernel.workplace()
        device = kernel.open_fuse()
        kernel.mount_fuse(device, str(kernel.WORK))
        kernel.unmount(str(kernel.WORK), kernel.DETACH)
    except OSError as error:
        print(f"FUSE cannot be mounted in a job's own world: {error.strerror}")


def advice(number: int, step: str) -> str:
    """What a step that failed means, and which knob it is."""
    denied = Path("/proc/sys/kernel/apparmor_restrict_unprivileged_userns")
    limit = Path("/proc/sys/user/max_user_namespaces")
    if step == "unshare":
        if number == errno.ENOSPC or (limit.is_file() and limit.read_text().strip() == "0"):
            return "the machine allows no user namespaces; raise user.max_user_namespaces"
        return (
            "the container may not make namespaces: it needs a seccomp profile that allows "
            "unshare, mount and umount2, as `roost up` sets where the pool file has data"
        )
    if denied.is_file() and denied.read_text().strip() == "1":
        return (
            "AppArmor restricts user namespaces on this machine; set "
            "kernel.apparmor_restrict_unprivileged_userns to 0"
        )
    if step == "/":
        return (
            "the container may not mount: its AppArmor profile (docker-default) or its seccomp "
            "profile forbids it"
        )
    return f"{step} cannot be set up for a job's own world: {os.strerror(number)}"
