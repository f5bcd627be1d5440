"""Alive? Ready? Why not, in one sentence: asked of HTCondor, from the role's own point of view.

- master: the collector answers, and it knows a negotiator; of two, each has its own condor_had and
  condor_replication beside its collector, and one has the negotiator: the other stands by.
- submit: there is room in the spool, the collector holds this node's own schedd ad, and the schedd
  answers.
- execute: the collector holds this node's own startd ad.

`condor_who` would say that all is well while the collector denies the startd (measured); so the
question is always asked of the collector.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from roost_node import space
from roost_node.vocab import CONDOR_PORT, SPOOL_DIR, SPOOL_FULL, SUPERVISED, Role

#: Seconds for one question; below the timeout of the image's HEALTHCHECK.
_PATIENCE: Final = 8


@dataclass(frozen=True)
class Answer:
    """What an HTCondor tool said."""

    status: int
    out: str
    err: str = ""

    @property
    def reason(self) -> str:
        """Its last words, for a sentence."""
        words = (self.err or self.out).strip().splitlines()
        return words[-1] if words else f"it ended with status {self.status}"


Ask = Callable[[Sequence[str]], Answer]


def ask(argv: Sequence[str]) -> Answer:
    """Run an HTCondor tool; a tool that takes too long answers with status 124."""
    try:
        done = subprocess.run(
            argv, capture_output=True, text=True, timeout=_PATIENCE, check=False, errors="replace"
        )
    except subprocess.TimeoutExpired:
        return Answer(124, "", f"no answer within {_PATIENCE} s")
    return Answer(done.returncode, done.stdout, done.stderr)


def processes() -> frozenset[str]:
    """The names of the processes that run here, as far as the kernel keeps them: 15 characters."""
    found = set()
    for comm in Path("/proc").glob("[0-9]*/comm"):
        with suppress(OSError):  # it has just ended
            found.add(comm.read_text().strip())
    return frozenset(found)


Running = Callable[[], Collection[str]]


def why_dead(running: Running = processes, *, supervised: str = SUPERVISED) -> str:
    """Why a new start would help this node, in one sentence; empty if it would not.

    This is not whether it is well: a node whose master is away, or that waits to be admitted, is
    not, and gains nothing by being killed. condor_master's end is the node's end; one that ended
    and left the node behind means that supervisord does not do its work.
    """
    if Path(supervised).exists() and "condor_master" not in running():
        return "condor_master has ended here, and supervisord took no notice"
    return ""


def stands_by(role: Role, master: str, running: Running = processes) -> bool:
    """Whether this node is one of two masters, and the one without a negotiator."""
    return role == "master" and "," in master and "condor_negotiat" not in running()


def why_not(
    role: Role,
    node: str,
    master: str,
    ask: Ask = ask,
    *,
    running: Running = processes,
    spool: str = SPOOL_DIR,
) -> str:
    """Why this node is not healthy, in one sentence; empty if it is.

    `master` names its masters, `master,master-2` where there are two.
    """
    if role == "master":
        return _why_not_master(node, "," in master, ask, running)
    if role == "submit" and space.is_full(spool):
        return SPOOL_FULL
    master = master.replace(",", " or ")
    kind, attribute = ("-schedd", "Name") if role == "submit" else ("-startd", "Machine")
    daemon = "schedd" if role == "submit" else "startd"
    mine = f'{attribute} =?= "{node}"'
    answer = ask(["condor_status", kind, "-constraint", mine, "-limit", "1", "-af", "Name"])
    if answer.status:
        return f"the collector on {master} does not answer: {answer.reason}"
    if not answer.out.strip():
        return (
            f"the collector on {master} has no ad of this node's {daemon}: it has not started, "
            "not reached the master, or was refused; this node's log says which"
        )
    answer = ask(["condor_q", "-totals"]) if role == "submit" else Answer(0, "")
    return f"the schedd does not answer: {answer.reason}" if answer.status else ""


def _why_not_master(node: str, paired: bool, ask: Ask, running: Running) -> str:
    own = []
    if paired:
        there = running()
        for daemon in ("condor_had", "condor_replication"):
            if daemon[:15] not in there:
                return f"{daemon} does not run: this node cannot take the other master's place"
        # The other collector would answer in its place.
        own = ["-pool", f"<127.0.0.1:{CONDOR_PORT}?alias={node}>"]
    answer = ask(["condor_status", "-negotiator", *own, "-af", "Name"])
    if answer.status:
        return f"the collector does not answer: {answer.reason}"
    return "" if answer.out.strip() else "the collector knows no negotiator yet"
