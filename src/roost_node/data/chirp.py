"""Tells a job's access point why it is held: in HTCondor's words, a delayed update of its ad.

The wrapper cannot hold a job by itself: a file that it could leave for that makes the starter fail,
and the job start again. What is told here stands in the ad when the job's end is judged, by the
OnExitHold that roles.py gives it. The protocol is Chirp's: one line, one number back.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Final

#: Of a job's ad: why its data could not be mounted or written. Chirp's prefix is a must.
PROBLEM: Final = "ChirpDataMounts"


def tell(scratch: Path, problem: str) -> None:
    """Set PROBLEM, or clear what an earlier run left there. Raises OSError where nobody hears."""
    text = "".join(" " if letter in '"\\' or not letter.isprintable() else letter
                   for letter in problem)  # fmt: skip
    value = f'"{text}"' if problem else "undefined"
    _ask((scratch / ".chirp.config").read_text().split(), f"set_job_attr_delayed {PROBLEM} ", value)


def _ask(config: list[str], command: str, value: str) -> None:
    host, port, cookie = config
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        answers = connection.makefile("r")
        for line in (f"cookie {cookie}", command + value.replace(" ", "\\ ")):
            connection.sendall(f"{line}\n".encode())
            answer = answers.readline().strip()
            if not answer.lstrip("-").isdigit() or int(answer) < 0:
                raise OSError(f"the starter answers {answer!r}")


def is_told(ad: Mapping[str, str]) -> bool:
    """Whether the ad still has what an earlier run told."""
    return ad.get(PROBLEM.lower(), "undefined") != "undefined"
