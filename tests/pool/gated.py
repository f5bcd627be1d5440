"""Jobs that run until they are told to end, and what became of them: for drains and upgrades."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from node_bench import eventually
from roost_bench import ROOST, Json, ask, well, write

#: Ends, with what it was told, once somebody has opened its gate on its executor.
_SCRIPT = """\
#!/bin/sh
until [ -e /tmp/gate-$1 ]; do sleep 0.2; done
echo $1 through on $(hostname)
"""
_SUBMIT = """\
executable = gated.sh
arguments = {name}
output = {name}.out
error = {name}.err
log = {name}.log
should_transfer_files = Yes
when_to_transfer_output = ON_EXIT
transfer_output_files = ""
{more}
queue
"""


class Gated:
    """A job of a pool that runs until its gate is opened."""

    def __init__(
        self,
        pool: str,
        directory: Path,
        name: str,
        more: str = "",
        *,
        container: Callable[[str], str] = str,
    ) -> None:
        """`container` says in which container a node is, where that has another name."""
        self.container = container
        self.pool = pool
        self.name = name
        self.directory = directory
        write(directory / "gated.sh", _SCRIPT, 0o755)
        file = write(directory / f"{name}.sub", _SUBMIT.format(name=name, more=more))
        said = json.loads(well("submit", file, "--json", "--name", pool))
        (self.id,) = said["jobs"]
        self.cluster = str(said["cluster"])

    def inside(self, node: str, *argv: str) -> str:
        """What a command in a node says."""
        return ask("exec", self.container(node), *argv)

    def hostname(self, node: str) -> str:
        """What a node's kernel calls it."""
        return node

    def ad(self) -> Json:
        """What the queue, else the history, holds of it."""
        for tool in ("condor_q", "condor_history"):
            ads = self.inside(f"{self.pool}-submit", tool, "-json", self.id)
            if ads.strip() and (found := json.loads(ads)):
                return found[0]
        raise AssertionError(f"no job {self.id}")

    @property
    def state(self) -> str:
        rows = json.loads(well("q", "--all", "--json", "--name", self.pool))
        (state,) = [row["state"] for row in rows if row["id"] == self.id]
        return str(state)

    def host(self) -> str:
        """The executor where it runs or ran last; empty if it never did."""
        ad = self.ad()
        slot = ad.get("RemoteHost") or ad.get("LastRemoteHost") or ""
        return str(slot.rpartition("@")[2].split(".")[0])

    def runs(self) -> str:
        """Its executor, once its script waits there."""

        def there() -> str:
            host = self.host() if self.state == "running" else ""
            return (
                host
                if host and "gated" in ask("top", self.container(host), "-eo", "pid,args")
                else ""
            )

        return eventually(there, 120, what=self.ad)

    def open(self, *nodes: str) -> None:
        """Let it end, on whichever of `nodes` it is."""
        for node in nodes or (self.host(),):
            self.inside(node, "touch", f"/tmp/gate-{self.name}")

    def ended(self) -> Json:
        """Its ad after it has ended well, its output brought back."""
        well("wait", self.cluster, "--name", self.pool)
        ad = self.ad()
        assert (ad["JobStatus"], ad["ExitCode"], ad["ExitBySignal"]) == (4, 0, False), ad
        said = (self.directory / f"{self.name}.out").read_text()
        assert said == f"{self.name} through on {self.hostname(self.host())}\n"
        return ad

    def ended_in_one_run(self, shadows: int = 1) -> Json:
        """As `ended`; it was begun once, watched over by so many shadows one after another.

        Its log counts the beginnings: a shadow only tells the queue of NumJobStarts now and then,
        so an access point that goes in between takes the number along.
        """
        ad = self.ended()
        log = (self.directory / f"{self.name}.log").read_text()
        begun = sum(line.startswith("001 ") for line in log.splitlines())
        assert (begun, ad["NumShadowStarts"]) == (1, shadows), f"{ad}\n{log}"
        return ad


class Running:
    """A `roost` command that goes on, and what it said until now."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self.said = ""

    def until(self, text: str, seconds: float = 240) -> None:
        """Return once it has said this. Fails if it ends before."""
        assert self.process.stderr is not None
        deadline = time.monotonic() + seconds
        while text not in self.said:
            left = deadline - time.monotonic()
            assert left > 0, f"not said in {seconds:g} s: {text!r}\n{self.said}"
            if select.select([self.process.stderr], [], [], left)[0]:
                more = os.read(self.process.stderr.fileno(), 65536)
                assert more, f"it ended and did not say {text!r}:\n{self.said}"
                self.said += more.decode()

    def interrupt(self) -> None:
        os.killpg(self.process.pid, signal.SIGINT)

    def end(self, seconds: float = 300) -> tuple[int, str]:
        """Its status and what it wrote to stdout, at its end."""
        out, err = self.process.communicate(timeout=seconds)
        self.said += err.decode()
        return self.process.returncode, out.decode()


@contextmanager
def running(*argv: str) -> Iterator[Running]:
    """A `roost` command as a process of its own."""
    with subprocess.Popen(
        [ROOST, *argv], stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    ) as process:
        try:
            yield Running(process)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
