"""The users' accounts on an access point: made, kept across containers, and taken away."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from roost_node import settings
from roost_node.errors import BadInput, NodeError
from roost_node.vocab import HOME_DIR, Role

#: Accounts below are the system's own.
FIRST_UID: Final = 1000
#: For so long, in seconds, a user's jobs are waited for to leave the queue.
_PATIENCE: Final = 90.0
_PAUSE: Final = 0.5
_USAGE: Final = "user takes add NAME..., rm [--purge] NAME, or ls"


def main(argv: Sequence[str], role: Role) -> int:
    """`roost-node user …`. Raises BadInput, and NodeError for what does not work."""
    if role != "submit":
        raise BadInput("users have their accounts on an access point; run this there")
    match list(argv):
        case ["add", _, *_]:
            for name in [_checked_name(name) for name in argv[1:]]:
                add(name)
        case ["rm", "--purge", name]:
            remove(_checked_name(name), purge=True)
        case ["rm", name]:
            remove(_checked_name(name), purge=False)
        case ["ls"]:
            print(json.dumps(names()))
        case _:
            raise BadInput(_USAGE)
    return 0


def names() -> list[str]:
    """Everybody with an account and a home."""
    homes = Path(HOME_DIR)
    return sorted(
        each.pw_name for each in pwd.getpwall()
        if each.pw_uid >= FIRST_UID and Path(each.pw_dir).parent == homes
    )  # fmt: skip


def add(name: str, password: str = "") -> None:
    """An account, if there is none yet, whose home is closed to others. Raises BadInput."""
    try:
        if not _known(name):
            kept = Path(HOME_DIR, name)
            here = kept.is_dir() and kept.lstat().st_uid == 0
            made = "--no-create-home" if here else "--create-home"
            _checked(["useradd", made, "--shell", "/bin/bash", name])
            if here:  # of one who was here before, and left it
                _checked(["chown", "-hR", f"{name}:{name}", str(kept)])
        if password:
            _checked(["chpasswd"], stdin=f"{name}:{password}\n")
    except subprocess.CalledProcessError as error:
        raise BadInput(f"user {name} cannot be created: {error.stderr.strip()}") from None


def restore() -> None:
    """Make an account for every home that has none: the container is new, the volume is not."""
    for home in sorted(Path(HOME_DIR).iterdir()):
        owner = home.stat().st_uid
        if owner >= FIRST_UID and settings.is_user(home.name) and not _known(home.name):
            with suppress(subprocess.CalledProcessError):  # its number is somebody else's by now
                _checked(["useradd", "--no-create-home", "--shell", "/bin/bash",
                          "--uid", str(owner), home.name])  # fmt: skip


def remove(name: str, *, purge: bool) -> None:
    """Take the account away, and its jobs out of the queue; a no-op if there is none.

    The home stays, root's and closed, until the name is added again; `purge` deletes it.
    """
    home = Path(HOME_DIR, name)
    if name in names():
        _end_jobs(name)
        try:
            # By force: a shell or a shadow of theirs may live on for a moment.
            _checked(["userdel", "--force", name])
        except subprocess.CalledProcessError as error:
            raise NodeError(f"user {name} cannot be removed: {error.stderr.strip()}") from None
    if purge:
        shutil.rmtree(home, ignore_errors=True)
    elif home.is_dir():
        os.chown(home, 0, 0)
        home.chmod(0o700)


def _end_jobs(name: str) -> None:
    """Return once the queue has none of theirs. Raises NodeError."""
    theirs = ["-constraint", f'Owner == "{name}"']
    until = time.monotonic() + _PATIENCE
    while True:
        asked = subprocess.run(["condor_q", "-allusers", *theirs, "-af", "ClusterId"],
                               capture_output=True, text=True, check=False)  # fmt: skip
        if asked.returncode == 0 and not asked.stdout.strip():
            return
        if time.monotonic() > until:
            raise NodeError(
                f"user {name} stays: its jobs have not left the queue in {_PATIENCE:g} s"
                if asked.returncode == 0
                else f"user {name} stays: the queue does not say whether it has jobs of theirs"
            )
        # Root may: this is the queue's own container.
        subprocess.run(["condor_rm", *theirs], capture_output=True, check=False)
        time.sleep(_PAUSE)


def _checked_name(name: str) -> str:
    from roost_node import pki  # what reads certificates is not loaded for each look at health

    return pki.check_user(name)


def _known(user: str) -> bool:
    return subprocess.run(["id", user], capture_output=True, check=False).returncode == 0


def _checked(argv: Sequence[str], stdin: str = "") -> None:
    subprocess.run(argv, input=stdin, capture_output=True, text=True, check=True)
