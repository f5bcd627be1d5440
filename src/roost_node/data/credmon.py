"""What HTCondor calls a credential monitor: makes a job's token of what a user stored.

condor_credd writes `USER/NAME.top`, sends HUP to the process in the file `pid`, and tells the user
that the token is stored once `USER/NAME.use` is there: what jobs get. Nothing is refreshed here, a
token is good for as long as its issuer says. The schedd is told which are there.
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Final

from roost_node import files
from roost_node.data import tokens
from roost_node.signals import hang_up

#: Seconds between two looks: nobody says when a token is removed, or expires.
_LOOK: Final = 5.0


def main() -> int:
    """Run until TERM."""
    awaited = {signal.SIGHUP, signal.SIGTERM, signal.SIGINT, signal.SIGQUIT}
    signal.pthread_sigmask(signal.SIG_BLOCK, awaited)
    directory = tokens.DIRECTORY
    files.write(directory / "pid", f"{os.getpid()}\n".encode(), 0o644)
    (directory / "CREDMON_COMPLETE").touch()
    told = ""
    while True:
        hand_on(directory)
        told = _tell(told)
        got = signal.sigtimedwait(awaited, _LOOK)
        if got is not None and got.si_signo != signal.SIGHUP:
            return 0


def hand_on(directory: Path) -> None:
    """Have a `.use` for every `.top`, as new as that, and for nothing else."""
    for top in directory.glob("*/*.top"):
        use = top.with_suffix(".use")
        try:
            stored = top.read_bytes()
            if not use.exists() or use.read_bytes() != stored:
                _write(use, stored)
        except FileNotFoundError:  # it was removed just now
            continue
    for use in directory.glob("*/*.use"):
        if not use.with_suffix(".top").exists():
            use.unlink(missing_ok=True)


def _write(path: Path, content: bytes) -> None:
    """Whole, and root's own: a shadow reads no other."""
    temporary = path.with_suffix(".new")
    with os.fdopen(os.open(temporary, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o600), "wb") as file:
        file.write(content)
    temporary.replace(path)


def _tell(told: str) -> str:
    """Let the schedd know what is stored, if that has changed; what it knows now."""
    text = tokens.requirement(tokens.found(), time.time())
    if text != told:
        files.write(tokens.CONF, text.encode(), 0o644)
        hang_up("condor_schedd")
    return text
