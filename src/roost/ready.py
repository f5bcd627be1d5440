"""Whether a pool works: what its access point says of it, and a first job as the proof."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

from roost import logs
from roost.engines.base import Engine
from roost.errors import EngineError, JobError, PoolNotReady, RoostError
from roost.fit import Load, loads, missing
from roost.plan import Observed, Ref
from roost.queue import Queue
from roost_node.vocab import DRAINING, Role

#: How long a pool may take until every node answers, in seconds: a loaded machine needs minutes.
READY_WITHIN: Final = 180.0
#: How long the first job may take once every node answers, in seconds.
JOB_WITHIN: Final = 120.0
_POLL: Final = 0.25

#: The whole way through schedd, negotiator, startd and starter, and nothing more. It names its
#: outputs, none, because a starter that must find them sleeps a second first; and a log, because
#: that can be waited for.
FIRST_JOB: Final = """\
executable = /bin/true
transfer_executable = False
should_transfer_files = YES
transfer_output_files = ""
log = first.log
JobBatchName = "roost up"
queue
"""


def access_point(pool: str, observed: Observed) -> Ref:
    """The node where jobs are submitted. Raises PoolNotReady if there is none."""
    for node in observed.nodes:
        if node.role == "submit":
            return node.ref
    raise PoolNotReady(f"the pool {pool!r} has no access point", advice="`roost up` makes it anew")


def tool(engine: Engine, observed: Observed, *argv: str, timeout: float = 20) -> str | None:
    """What a tool in the access point answers; None while it cannot."""
    access = next((node for node in observed.nodes if node.role == "submit"), None)
    if access is None or access.state != "running":
        return None
    with suppress(EngineError):
        done = engine.exec(access.ref, argv, timeout=timeout)
        if done.status == 0:
            return done.text
    return None


def work(engine: Engine, observed: Observed, *, timeout: float = 20) -> dict[str, Load]:
    """What the executors do, as far as anybody can be asked.

    The schedd knows first, the collector a second later; but the collector also knows of jobs whose
    access point has just been made anew.
    """
    works = 'Activity =!= "Idle" && PartitionableSlot =!= true'
    slots = tool(
        engine, observed,
        "condor_status", "-const", f"{DRAINING} =?= true || ({works})",
        "-format", "%s|", "Machine", "-format", "%v|", "JobId",
        "-format", "%v|", "ifThenElse(isUndefined(JobStart), 0, time() - JobStart)",
        "-format", "%v\n", f"{DRAINING} =?= true",
        timeout=timeout,
    )  # fmt: skip
    jobs = tool(
        engine, observed,
        # 6: its output is on the way
        "condor_q", "-allusers", "-const", "JobStatus == 2 || JobStatus == 6",
        "-format", "%s|", "RemoteHost", "-format", "%d.", "ClusterId", "-format", "%d|", "ProcId",
        "-format", "%v|false\n",
        "ifThenElse(isUndefined(JobCurrentStartDate), 0, time() - JobCurrentStartDate)",
        timeout=timeout,
    )  # fmt: skip
    return loads(slots or "", jobs or "")


def await_ready(
    engine: Engine, pool: str, wanted: Mapping[str, Role], restarts: Mapping[str, int]
) -> None:
    """Return once the collector knows every node's daemons and the schedd answers.

    Raises PoolNotReady as soon as a node is gone or has ended, also if the engine starts it again
    (`restarts` are what each had before), or when READY_WITHIN is over.
    """
    until = time.monotonic() + READY_WITHIN
    pause = _POLL
    while True:
        observed = engine.observe(pool)
        gone = sorted(set(wanted) - {node.name for node in observed.nodes})
        if gone:
            raise PoolNotReady(
                f"{gone[0]} was removed by somebody else", advice="`roost up` makes it anew"
            )
        for node in observed.nodes:
            if node.name not in wanted:
                continue
            if node.state in ("exited", "dead"):
                status = "" if node.exit_code is None else f" with status {node.exit_code}"
                raise PoolNotReady(f"{node.name} ended{status}{_quote(engine, node.name)}")
            if node.restarts > restarts.get(node.name, 0):
                raise PoolNotReady(f"{node.name} ended{_quote(engine, node.name)}")
        ads = tool(engine, observed, "condor_status", "-any", "-af", "MyType", "Name") or ""
        late = missing(wanted, ads)
        if not late and tool(engine, observed, "condor_q", "-totals") is None:
            late = [name for name, role in wanted.items() if role == "submit"]
        if not late:
            return
        if time.monotonic() > until:
            raise PoolNotReady(
                f"{late[0]} did not answer within {READY_WITHIN:g} s{_quote(engine, late[0])}"
            )
        # Each question costs the machine that is waited for; late ones are asked less often.
        time.sleep(pause)
        pause = min(2.0, pause * 1.25)


def _quote(engine: Engine, node: str) -> str:
    """The lines of a node's log that tell what went wrong, to follow a sentence."""
    with suppress(RoostError):
        lines = logs.telling(list(engine.logs(Ref("node", node), tail=200)))
        return "".join(["; its log says:", *(f"\n  {line}" for line in lines)]) if lines else ""
    return ""


def first_job(queue: Queue) -> None:
    """Run a job through the real queue. Raises JobError with what the pool says about it."""
    with tempfile.TemporaryDirectory(prefix="roost-") as directory:
        file = Path(directory, "first.sub")
        file.write_text(FIRST_JOB)
        cluster = queue.submit(file).cluster
        try:
            results = queue.wait(cluster, timeout=JOB_WITHIN)
        except JobError as error:
            with suppress(RoostError):
                reasons = "; ".join(queue.why(str(cluster)).reasons)
                raise JobError(f"the first job did not run: {reasons}") from error
            raise
        queue.fetch(cluster)
    failed = [result for result in results if not result.ok]
    if failed:
        raise JobError(f"the first job failed: {failed[0]}")
