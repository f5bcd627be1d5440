"""A job with mounts, seen from outside: what the starter takes for the job.

It makes the job's world, hands signals into it, ends it when the starter ends, and ends as the job
ended: by the same exit code or the same signal.
"""

from __future__ import annotations

import json
import os
import re
import resource
import selectors
import signal
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NoReturn

from roost_node.data import chirp, entries, kernel, world
from roost_node.data.entries import DATA_MOUNTS, PRIVATE_MOUNTS, Offer, Wish
from roost_node.data.shape import Refused
from roost_node.errors import BadInput

#: The pool's offer, where a node puts it for its jobs.
OFFER: Final = Path("/run/roost/data.json")

#: Not handed on: what cannot be caught, what says that a child ended, and what a fault of this
#: program itself would send.
_KEPT: Final = {
    signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD, signal.SIGCONT, signal.SIGSEGV, signal.SIGBUS,
    signal.SIGILL, signal.SIGFPE, signal.SIGTTIN, signal.SIGTTOU, signal.SIGTSTP,
}  # fmt: skip
HANDED_ON: Final = frozenset(signal.valid_signals() - _KEPT)


def read_ad(text: str) -> dict[str, str]:
    """A job's ad, by names in lower case; values as they are written."""
    lines = (line.partition(" = ") for line in text.splitlines())
    return {name.strip().lower(): value.strip() for name, equals, value in lines if equals}


def asks_for(ad: Mapping[str, str], offer: Offer) -> tuple[Wish, ...] | None:
    """What a job mounts; None if it needs no world of its own. Raises Refused.

    The wrapper calls for jobs that ask, and for scripts with a word of mounting in them.
    """
    asked = ad.get(DATA_MOUNTS.lower(), "undefined")
    if asked == "undefined":
        private = ad.get(PRIVATE_MOUNTS.lower(), "true").lower()
        return None if private == "false" else ()
    match = re.fullmatch(r'"((?:[^"\\]|\\.)*)"', asked)
    if match is None:
        raise Refused(f"DataMounts is {asked}: write it in quotes")
    return entries.wishes(match[1], offer)


@dataclass(frozen=True)
class Ended:
    """How a job ended, as its world reports it."""

    status: int | None
    """As wait(2) gives it; None if the job never ran."""
    problem: str = ""
    """Why it is held; empty if it is not."""


def main(argv: Sequence[str]) -> NoReturn:
    """Run the job `argv` in a world of its own, or as it is if it needs none."""
    scratch = Path(os.environ["_CONDOR_SCRATCH_DIR"])
    ad = read_ad(Path(os.environ["_CONDOR_JOB_AD"]).read_text(errors="replace"))
    try:
        offer = entries.read(OFFER.read_text(), str(OFFER))
        wishes = asks_for(ad, offer)
    except (Refused, BadInput, OSError) as error:
        _end(Ended(None, str(error)), scratch, ad)
    if wishes is None:
        world.restore_signals()
        os.execv(argv[0], list(argv))  # noqa: S606
    credentials = os.environ.get("_CONDOR_CREDS")
    task = world.Task(tuple(argv), wishes, scratch, Path(credentials) if credentials else None)
    _end(_run(task), scratch, ad)


def _run(task: world.Task) -> Ended:
    """Make the world and wait for its end."""
    starter = os.pidfd_open(os.getppid())  # needs no right; PDEATHSIG does, as the starter is root
    if os.getppid() == 1:
        os._exit(1)  # it ended meanwhile
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        kernel.enter()
    except OSError as error:
        problem = f"this node does not let a job mount ({error.filename}: {error.strerror})"
        return Ended(None, problem)
    control, to_world = os.pipe()
    from_world, report = os.pipe()
    keeper = os.fork()
    if keeper == 0:
        os.close(to_world)
        os.close(from_world)
        world.live(task, control, report, before)
    os.close(control)
    os.close(report)
    said = _follow(keeper, starter, to_world, from_world)
    _, status = os.waitpid(keeper, 0)
    if not said:  # somebody killed it, and with it all that was in it
        return Ended(status if os.WIFSIGNALED(status) else signal.SIGKILL)
    answer = json.loads(said)
    return Ended(answer["status"], answer["problem"])


def _follow(keeper: int, starter: int, to_world: int, from_world: int) -> bytes:
    """Hand signals on until the world has reported; what it said."""
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    os.set_blocking(woken, False)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    for number in HANDED_ON:
        signal.signal(number, lambda _number, _frame: None)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    said = b""
    with selectors.DefaultSelector() as events:
        for source in (woken, starter, from_world):
            events.register(source, selectors.EVENT_READ)
        while True:
            for key, _ in events.select():
                if key.fd == woken:
                    with suppress(BrokenPipeError):
                        os.write(to_world, os.read(woken, 64))
                elif key.fd == starter:
                    os.kill(keeper, signal.SIGKILL)
                    os._exit(1)
                else:
                    more = os.read(from_world, 65536)
                    said += more
                    if not more:
                        return said


def _end(ended: Ended, scratch: Path, ad: Mapping[str, str]) -> NoReturn:
    """End as the job ended, and have it held if there is a problem."""
    if ended.problem:
        print(f"roost: {ended.problem}", file=sys.stderr, flush=True)
        if ended.status is None:
            _stand_in(scratch, ad)
    if ended.problem or chirp.is_told(ad):
        try:
            chirp.tell(scratch, ended.problem)
        except (OSError, ValueError) as error:
            print(f"roost: HTCondor does not hear why: {error}", file=sys.stderr, flush=True)
    status = 1 << 8 if ended.status is None else ended.status
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if number != signal.SIGKILL:
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        os.kill(os.getpid(), number)
    os._exit(os.WEXITSTATUS(status))


def _stand_in(scratch: Path, ad: Mapping[str, str]) -> None:
    """Empty files for the outputs of a job that never ran.

    A file that is missing would hold the job before it is asked why it should be.
    """
    for name in ad.get("transferoutput", "").strip('"').split(","):
        path = Path(name.strip())
        if path.name and not path.is_absolute() and "://" not in name:
            with suppress(OSError):
                (scratch / path).touch(exist_ok=True)
