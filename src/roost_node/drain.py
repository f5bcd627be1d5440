"""Draining an executor: it takes no new job, and those that run finish.

It works through START and CLAIM_WORKLIFE, not through condor_drain. condor_drain, like
`condor_off -peaceful`, retires jobs: it grants each MaxJobRetirementTime, of which a job may ask
for less (and a nice one does), so that both can end a job that runs. START says nothing about a job
that runs. It refuses new claims, and a claim whose job has ended is given up at once, because its
slot is then claimed and idle, where START counts; CLAIM_WORKLIFE tells the access point so in the
same moment. And it can be taken back at any time.

What runs is asked of the startd itself, at its own address: it knows before the collector does, and
also where there is no collector.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, NoReturn

from roost_node.errors import BadInput, NodeError
from roost_node.health import Ask, ask
from roost_node.vocab import DRAINING, LOG_DIR

#: Read after everything that a user configures.
CONFIG: Final = Path("/etc/condor/config.d/97-drain.conf")
TEXT: Final = f"""\
# Written by `roost-node drain`, removed by `roost-node drain --cancel` and at the node's start.
START = False
CLAIM_WORKLIFE = 0
{DRAINING} = True
STARTD_ATTRS = $(STARTD_ATTRS) {DRAINING}
"""
_ADDRESS: Final = Path(LOG_DIR) / ".startd_address"
_ATTRIBUTES: Final = ("Name", "State", "JobId", "RemoteOwner", "JobStart", DRAINING)
#: A slot in one of these has a job, or may yet get one by a claim of before.
_TAKEN: Final = frozenset(("Claimed", "Preempting", "Matched"))

#: Seconds that a startd may take until it obeys: a busy machine is slow.
_OBEYS_WITHIN: Final = 60.0
_PAUSE: Final = 0.25
#: Seconds between two looks while jobs run.
_LOOK: Final = 1.0


@dataclass(frozen=True)
class Job:
    """A job that the node runs."""

    id: str
    owner: str
    seconds: int
    """How long it has run."""

    def __str__(self) -> str:
        return f"{self.id} of {self.owner} ({self.seconds} s)"


@dataclass(frozen=True)
class Report:
    """What the startd says of its slots."""

    draining: bool
    """Every slot takes no new job."""
    taken: bool
    """A slot is claimed: it runs a job, or has yet to find out that it may not."""
    jobs: tuple[Job, ...]

    @property
    def drained(self) -> bool:
        return self.draining and not self.taken


def report(ads: Iterable[Mapping[str, Any]], now: float) -> Report:
    """The slots' ads as a report."""
    slots = list(ads)
    jobs = {
        str(ad["JobId"]): Job(
            str(ad["JobId"]),
            str(ad.get("RemoteOwner") or "somebody").partition("@")[0],
            max(0, int(now - float(ad.get("JobStart") or now))),
        )
        for ad in slots
        if ad.get("JobId")
    }
    return Report(
        bool(slots) and all(ad.get(DRAINING) is True for ad in slots),
        any(ad.get("State") in _TAKEN for ad in slots),
        tuple(jobs[key] for key in sorted(jobs, key=_by_number)),
    )


def _by_number(job: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdigit() else (0, part) for part in job.split(".")]


class Startd:
    """This node's startd, as far as draining needs it."""

    def __init__(self, ask: Ask = ask) -> None:
        self._ask = ask

    def pids(self) -> list[int]:
        """Its processes: none, or one."""
        found = [path for path in Path("/proc").iterdir() if path.name.isdigit()]
        return [int(path.name) for path in found if _comm(path) == "condor_startd"]

    def reconfigure(self) -> None:
        """Make it read its configuration again."""
        for pid in self.pids():
            try:
                os.kill(pid, signal.SIGHUP)
            except ProcessLookupError:
                continue

    def report(self) -> Report | None:
        """What it says; None while it does not."""
        try:
            address = _ADDRESS.read_text().splitlines()[0]
        except (FileNotFoundError, IndexError):
            return None
        said = self._ask(
            ["condor_status", "-pool", address, "-json", "-attributes", ",".join(_ATTRIBUTES)]
        )
        if said.status != 0:
            return None
        return report(json.loads(said.out or "[]"), time.time())

    def vacate(self) -> None:
        """Send the jobs away: each gets MachineMaxVacateTime to end, and runs again elsewhere."""
        address = _ADDRESS.read_text().splitlines()[0]
        said = self._ask(["condor_vacate", "-addr", address])
        if said.status != 0:
            raise NodeError(f"the startd does not send its jobs away: {said.reason}")


def _comm(process: Path) -> str:
    try:
        return (process / "comm").read_text().strip()
    except OSError:
        return ""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise BadInput(f"{message}; it is `roost-node drain [--limit SECONDS | --cancel] [--json]`")


def run(
    argv: Sequence[str],
    role: str,
    *,
    startd: Startd | None = None,
    config: Path = CONFIG,
    say: Callable[[str], None] = lambda line: print(line, flush=True),
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> int:
    """`roost-node drain`: the exit status. Raises BadInput, NodeError."""
    parser = _Parser(prog="roost-node drain", add_help=False, allow_abbrev=False)
    parser.add_argument("--limit", type=_seconds)
    parser.add_argument("--cancel", action="store_true")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args(argv)
    if given.cancel and given.limit is not None:
        parser.error("--cancel has no --limit")
    if role != "execute":
        raise BadInput(f"only an executor runs jobs and drains; this node is a {role} node")
    node = _Node(startd or Startd(), config, say, sleep, clock)
    if given.cancel:
        node.cancel(as_json=given.json)
    elif given.json:
        node.step(vacate=given.limit == 0)
    else:
        node.drain(given.limit)
    return 0


def _seconds(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 9:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds")
    return int(text)


@dataclass(frozen=True)
class _Node:
    startd: Startd
    config: Path
    say: Callable[[str], None]
    sleep: Callable[[float], None]
    clock: Callable[[], float]

    def drain(self, limit: int | None) -> None:
        """Return once no job runs; after `limit` seconds those that do are sent away."""
        until = None if limit is None else self.clock() + limit
        told: object = None
        sent = False
        while True:
            now = self._begin()
            if now.drained:
                self.say("drained: no job runs, and none will start")
                return
            names = [job.id for job in now.jobs]
            if until is not None and self.clock() >= until:
                if not sent:
                    self.say(f"the limit is over: sent away {_listed(now.jobs)}")
                    self.startd.vacate()
                sent = True
            elif names != told:
                self.say(f"waiting for {_listed(now.jobs)}")
                told = names
            self.sleep(_LOOK)

    def step(self, *, vacate: bool) -> None:
        """Begin to drain, or go on, and say at once, as JSON, what still runs."""
        now = self._begin()
        if vacate and now.taken:
            self.startd.vacate()
        self.say(json.dumps({"drained": now.drained, "jobs": [asdict(job) for job in now.jobs]}))

    def cancel(self, *, as_json: bool) -> None:
        """Take jobs again; a no-op if it does."""
        if self.config.exists():
            self.config.unlink()
            self._until_it_says(draining=False)
        if as_json:
            self.say(json.dumps({"drained": False, "jobs": []}))
        else:
            self.say("not draining: this node takes jobs")

    def _begin(self) -> Report:
        """Draining, for sure; what runs."""
        if not self.config.exists():
            part = self.config.with_name(f".{self.config.name}.part")
            part.write_text(TEXT)
            part.rename(self.config)
        return self._until_it_says(draining=True)

    def _until_it_says(self, *, draining: bool) -> Report:
        """What the startd says once it obeys; if there is none, it will when it starts."""
        until = self.clock() + _OBEYS_WITHIN
        tries = 0
        while True:
            now = self.startd.report()
            if now is not None and now.draining == draining:
                return now
            if not self.startd.pids():
                return Report(draining, False, ())
            if self.clock() > until:
                what = "does not answer" if now is None else "does not read its configuration again"
                raise NodeError(f"the startd {what}; its log says more: {LOG_DIR}/StartLog")
            if tries % 8 == 0:
                self.startd.reconfigure()
            tries += 1
            self.sleep(_PAUSE)


def _listed(jobs: Sequence[Job]) -> str:
    """`2 jobs: 3.0 of john (5 s), 3.1 of john (4 s)`."""
    if not jobs:
        return "a claim to end"
    count = "1 job" if len(jobs) == 1 else f"{len(jobs)} jobs"
    return f"{count}: {', '.join(map(str, jobs))}"
