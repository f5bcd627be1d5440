"""HTCondor's daemons here, told to read their configuration again."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from pathlib import Path


def hang_up(program: str) -> None:
    """Send HUP to every process of that name; condor_master hands it on to every daemon."""
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if (process / "comm").read_text().strip() == program:
                os.kill(int(process.name), signal.SIGHUP)
