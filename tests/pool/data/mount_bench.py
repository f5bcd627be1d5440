"""Jobs that mount data, on a real pool beside real servers; and what is left of them."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from node_bench import Node, docker, eventually
from roost_bench import at_home, fresh, taken_down, well, write

USER = "user"
#: Everything about processes and mounts inside a node, as JSON.
_SURVEY = r"""
import json, os
found = {"pids": {}, "mounts": {}, "dirs": os.listdir("/var/lib/condor/execute")}
for pid in filter(str.isdigit, os.listdir("/proc")):
    try:
        stat = open(f"/proc/{pid}/stat").read()
        state, ppid = stat.rpartition(")")[2].split()[:2]
        args = open(f"/proc/{pid}/cmdline").read().split("\0")[:-1]
        mounts = open(f"/proc/{pid}/mountinfo").read()
    except OSError:
        continue
    if state != "Z":
        comm = stat.partition("(")[2].rpartition(")")[0]
        found["pids"][pid] = [int(ppid), comm, args]
        found["mounts"][pid] = [m.split()[4] for m in mounts.splitlines() if " - fuse" in m]
print(json.dumps(found))
"""


@dataclass(frozen=True)
class Survey:
    """The processes and FUSE mounts of a node at one moment."""

    pids: Mapping[int, tuple[int, str, list[str]]]
    mounts: Mapping[int, list[str]]
    directories: list[str]

    @classmethod
    def of(cls, node: Node) -> Survey:
        found = json.loads(node.sh("python3 -c " + _quoted(_SURVEY)))
        return cls(
            {int(pid): (row[0], row[1], row[2]) for pid, row in found["pids"].items()},
            {int(pid): row for pid, row in found["mounts"].items()},
            [name for name in found["dirs"] if name.startswith("dir_")],
        )

    def children(self, parent: int) -> list[int]:
        return [pid for pid, (ppid, _, _) in self.pids.items() if ppid == parent]

    def below(self, parent: int) -> list[int]:
        """Every descendant."""
        found = self.children(parent)
        return found + [each for child in found for each in self.below(child)]

    def cast(self, case: str) -> Cast | None:
        """The processes of the job that has `case` among its arguments; None before it sleeps."""
        outers = [
            pid for pid, (ppid, comm, args) in self.pids.items()
            if case in args and comm == "python3"
            and self.pids.get(ppid, (0, "", []))[1] == "condor_starter"
        ]  # fmt: skip
        for outer in outers:
            for keeper in self.children(outer):
                below = self.below(keeper)
                servers = [pid for pid in self.children(keeper)
                           if self.pids[pid][1] in ("rclone", "sshfs")]  # fmt: skip
                sleeps = [pid for pid in below if self.pids[pid][1] == "sleep"]
                if servers and sleeps:
                    job = self.pids[sleeps[0]][0]
                    return Cast(self.pids[outer][0], outer, keeper, servers, job)
        return None

    def left_of(self, cases: Sequence[str]) -> str:
        """What is still there of these jobs, in words; empty if nothing."""
        procs = {pid: row for pid, row in self.pids.items()
                 if set(row[2]) & set(cases) or row[1] in ("rclone", "sshfs")}  # fmt: skip
        mounts = {pid: row for pid, row in self.mounts.items() if row}
        return f"{procs} {mounts} {self.directories}" if procs or mounts or self.directories else ""


@dataclass(frozen=True)
class Cast:
    """The processes of one job, by their parts; ids as the node sees them."""

    starter: int
    wrapper: int
    keeper: int
    servers: list[int]
    job: int


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


@dataclass(frozen=True)
class Bench:
    """A pool, and the servers beside it."""

    name: str
    entry: str
    """What the pool file calls the writable WebDAV share; on this machine nobody else does."""
    dav: Node

    def node(self, name: str) -> Node:
        return Node(f"{self.name}-{name}")

    @property
    def submit(self) -> Node:
        return self.node("submit")

    def start(self, name: str, script: str, mounts: str, more: str = "",
              cases: Sequence[str] = ("0",)) -> int:  # fmt: skip
        """Submit a job for each of `cases`, its `$1`; the cluster."""
        self.submit.sh(
            f"cat > {name}.sh; chmod +x {name}.sh", user=USER, stdin=f"#!/bin/sh\n{script}\n"
        )
        wish = f'+DataMounts = "{mounts}"\n' if mounts else ""
        lines = "\n".join(cases)
        self.submit.sh(
            f"cat > {name}.sub", user=USER,
            stdin=f"executable = {name}.sh\narguments = $(case)\nlog = {name}.log\n"
            f"output = {name}.$(ProcId).out\nerror = {name}.$(ProcId).err\n{wish}"
            "request_memory = 256\nshould_transfer_files = Yes\n"
            f"when_to_transfer_output = ON_EXIT\n{more}\nqueue case from (\n{lines}\n)\n",
        )  # fmt: skip
        return int(self.submit.sh(f"condor_submit -terse {name}.sub", user=USER).split(".")[0])

    def ads(self, cluster: int) -> dict[int, dict[str, Any]]:
        """The jobs by number, from queue and history."""
        found: dict[int, dict[str, Any]] = {}
        for tool in ("condor_history", "condor_q"):
            text = self.submit.sh(f"{tool} -json {cluster}")
            found |= {row["ProcId"]: row for row in json.loads(text or "[]")}
        return found

    def ended(
        self, cluster: int, count: int = 1, seconds: float = 180
    ) -> dict[int, dict[str, Any]]:
        """The jobs, once each has completed, is held or was removed."""

        def over() -> dict[int, dict[str, Any]]:
            ads = self.ads(cluster)
            at_rest = [ad for ad in ads.values() if ad["JobStatus"] in (3, 4, 5)]
            return ads if len(at_rest) == count else {}

        return eventually(over, seconds, self.submit, what=lambda: self.submit.tried("condor_q")[1])

    def output(self, name: str, number: int = 0, kind: str = "out") -> str:
        return self.submit.sh(f"cat {name}.{number}.{kind}", user=USER)

    def remote(self, path: str) -> str:
        """A file on the WebDAV server; empty if it is lost."""
        return self.dav.tried(f"cat /srv/dav/{path} 2>/dev/null")[1]

    def mounted_anywhere(self) -> list[str]:
        """Processes of this whole machine that see a mount of the pool's data."""
        found = []
        for path in Path("/proc").glob("[0-9]*/mountinfo"):
            try:
                if f" {self.entry} " in path.read_text():
                    found.append(path.parent.name)
            except OSError:
                continue
        return found


@contextmanager
def bench(directory: Path, image: str, more: str = "", *, groups: str) -> Iterator[Bench]:
    """A pool with `data:`, beside a WebDAV server that nobody else uses."""
    name = fresh("data")
    network, entry = f"net-{name}", f"lab-{secrets.token_hex(4)}"
    dav = Node(f"dav-{name}")
    docker("network", "create", network)
    try:
        docker("run", "-d", "--name", dav.name, "--hostname", "dav", "--network", network,
               "--network-alias", "dav", "--init", "--entrypoint", "sh", image, "-c",
               "mkdir -p /srv/dav && exec rclone serve webdav /srv/dav --addr :8080")  # fmt: skip
        with at_home(directory), taken_down(name):
            well("up", write(
                directory / "pool.yaml",
                f"name: {name}\nhtcondor: {{image: '{image}'}}\nnetwork: {{name: {network}}}\n"
                f"execute: {groups}\ndata:\n"
                f"  {entry}: {{type: rclone, backend: webdav, wait: 120,\n"
                f"    options: {{url: 'http://dav:8080', vendor: other}}}}\n{more}",
            ))  # fmt: skip
            yield Bench(name, entry, dav)
    finally:
        docker("rm", "-f", "-v", dav.name, may_fail=True)
        docker("network", "rm", network, may_fail=True)
