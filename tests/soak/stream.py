"""The jobs: how they are submitted, and what is found of them afterwards."""

from __future__ import annotations

import io
import json
import tarfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from roost import Pool, PoolNotReady, RoostError
from roost.plan import Ref
from soak import events
from soak.oracle import LINES, Evidence, Record, Sent
from soak.schedule import Batch

_PATIENCE: Final = 120.0

#: Appends, so that a directory that held an earlier run's result already would show.
JOB: Final = f"""\
#!/bin/sh
echo "run of $1 on $(hostname)"
[ ! -f "$1.in" ] || cat "$1.in" >>"$1.data"
n=1
while [ $n -le 20 ]; do echo "$1 line $n" >>"$1.data"; n=$((n + 1)); done
sleep "$2"
while [ $n -le {LINES} ]; do echo "$1 line $n" >>"$1.data"; n=$((n + 1)); done
echo "end of $1"
exit "$3"
"""

SUBMIT: Final = """\
executable = job.sh
arguments = $(id) $(seconds) $(code)
log = {name}.log
output = $(id).out
error = $(id).err
should_transfer_files = YES
when_to_transfer_output = ON_EXIT
transfer_output_files = $(id).data
{more}request_memory = 32
+SoakJob = "$(id)"
queue id, seconds, code from (
{rows}
)
"""

_ATTRIBUTES: Final = (
    "SoakJob", "ClusterId", "ProcId", "JobStatus", "ExitCode", "ExitBySignal", "ExitSignal",
    "HoldReason", "RemoveReason",
)  # fmt: skip


def write(batch: Batch, directory: Path) -> Path:
    """The batch as a submit file with the files that it names; the submit file."""
    directory.mkdir(parents=True)
    script = directory / "job.sh"
    script.write_text(JOB)
    script.chmod(0o755)
    for job in batch.jobs:
        if job.input:
            (directory / f"{job.id}.in").write_text(job.input)
    more = "transfer_input_files = $(id).in\n" if batch.jobs[0].input else ""
    rows = "\n".join(f"{job.id}, {job.seconds}, {job.exit_code}" for job in batch.jobs)
    file = directory / f"{batch.name}.sub"
    file.write_text(SUBMIT.format(name=batch.name, more=more, rows=rows))
    return file


class Stream:
    """Submits each batch when it is due: every user for himself, one after the other."""

    def __init__(
        self, pool: Pool, batches: Sequence[Batch], directory: Path, say: Callable[[str], None]
    ) -> None:
        self.sent: list[Sent] = []
        self._pool = pool
        self._directory = directory
        self._say = say
        self._stopped = threading.Event()
        self._threads = [
            threading.Thread(
                target=self._run,
                args=([each for each in batches if each.user == user],),
                daemon=True,  # one that hangs must not keep the soak from its end
            )
            for user in sorted({batch.user for batch in batches})
        ]
        self._start = 0.0

    def start(self, at: float) -> None:
        """Begin; `at` is the soak's start, in seconds since the epoch."""
        self._start = at
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Submit nothing more."""
        self._stopped.set()

    def join(self, within: float) -> None:
        """Return once everything is submitted; raises PoolNotReady if that takes longer."""
        until = time.monotonic() + within
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))
            if thread.is_alive():
                raise PoolNotReady(f"a submission had no answer within {within:g} s")

    def _run(self, batches: Sequence[Batch]) -> None:
        for batch in batches:
            if self._stopped.wait(max(0.0, self._start + batch.at - time.time())):
                return
            file = write(batch, self._directory / batch.name)
            try:
                cluster = self._pool.submit(file, user=batch.user).submitted.cluster
                self.sent.append(Sent(batch, time.time(), cluster))
            except RoostError as error:
                words = " ".join(str(error).split())[:300]
                self.sent.append(Sent(batch, time.time(), None, words))
                self._say(f"{batch.name} refused: {words[:160]}")


def left(pool: Pool) -> list[dict[str, Any]]:
    """The ads of the stream's jobs in the queue. Raises RoostError."""
    return _ads(pool, "condor_q", "-allusers")


def evidence(pool: Pool) -> Evidence:
    """All that the access point knows of the stream's jobs. Raises RoostError."""
    files = dict(_files(pool))
    logs = [text for name, text in files.items() if name.endswith(".log")]
    queue, history = left(pool), _ads(pool, "condor_history")
    return Evidence(
        [_record(ad) for ad in queue],
        [_record(ad) for ad in history],
        [event for text in logs for event in events.read(text)],
        files,
    )


def _ads(pool: Pool, tool: str, *words: str) -> list[dict[str, Any]]:
    mine = ("-constraint", "SoakJob =!= undefined", "-json", "-attributes", ",".join(_ATTRIBUTES))
    done = pool.engine.exec(_access_point(pool), [tool, *words, *mine], timeout=_PATIENCE).check()
    found: list[dict[str, Any]] = json.loads(done.text) if done.text.strip() else []
    return found


def _record(ad: dict[str, Any]) -> Record:
    by_signal = bool(ad.get("ExitBySignal"))
    return Record(
        str(ad["SoakJob"]),
        f"{ad['ClusterId']}.{ad['ProcId']}",
        int(ad["JobStatus"]),
        None if by_signal else ad.get("ExitCode"),
        ad.get("ExitSignal") if by_signal else None,
        str(ad.get("HoldReason") or ad.get("RemoveReason") or ""),
    )


def _files(pool: Pool) -> Iterator[tuple[str, str]]:
    """Every file of the users' submissions, by its own name."""
    argv = ["tar", "-C", "/home", "-cf", "-", "."]
    done = pool.engine.exec(_access_point(pool), argv, timeout=_PATIENCE).check()
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
        for member in archive:
            if member.isfile() and (file := archive.extractfile(member)) is not None:
                yield Path(member.name).name, file.read().decode(errors="replace")


def _access_point(pool: Pool) -> Ref:
    return pool.access_point
