"""Jobs under faults: what ran where, how often, and what came of it, as the job log tells it."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from node_bench import Node, docker, eventually
from roost_bench import at_home, fresh, taken_down, well, write

USER = "john"


class Pool:
    """A pool that `roost up` made of a pool file, seen from its access point."""

    def __init__(self, name: str, file: Path) -> None:
        self.name = name
        self.file = file
        self.master = self.node("master")
        self.submit = self.node("submit")

    def node(self, name: str) -> Node:
        return Node(f"{self.name}-{name}")

    def machines(self) -> set[str]:
        """The nodes whose slots the collector knows."""
        return set(self.submit.tried("condor_status -af Machine")[1].split())

    def start(self, name: str, count: int, script: str, more: str = "") -> Jobs:
        """Submit `count` jobs that run `script`, whose `$1` is the job's number."""
        self.submit.sh(
            f"cat > {name}.sh; chmod +x {name}.sh", user=USER, stdin=f"#!/bin/sh\n{script}\n"
        )
        self.submit.sh(
            f"cat > {name}.sub", user=USER,
            stdin=f"executable = {name}.sh\narguments = $(ProcId)\nlog = {name}.log\n"
            f"output = {name}.$(ProcId).out\ntransfer_output_files = \"\"\nrequest_memory = 32\n"
            "should_transfer_files = Yes\nwhen_to_transfer_output = ON_EXIT\n"
            f"{more}\nqueue {count}\n",
        )  # fmt: skip
        cluster = self.submit.sh(f"condor_submit -terse {name}.sub", user=USER).split(".")[0]
        return Jobs(self, name, int(cluster), count)


@dataclass(frozen=True)
class Jobs:
    """The jobs of one submission."""

    pool: Pool
    name: str
    cluster: int
    count: int

    def attributes(self, *names: str) -> dict[int, dict[str, Any]]:
        """Job's number → what the queue says, or of jobs that left it the history."""
        found: dict[int, dict[str, Any]] = {}
        words = ",".join(("ProcId", *names))
        for tool in ("condor_history", "condor_q"):
            text = self.pool.submit.sh(f"{tool} -json -attributes {words} {self.cluster}")
            found |= {row["ProcId"]: row for row in json.loads(text or "[]")}
        return found

    def log(self) -> str:
        return self.pool.submit.sh(f"cat {self.name}.log", user=USER)

    def executions(self) -> dict[int, list[tuple[float, str]]]:
        """Job's number → when it began to run, and on which node, each time."""
        log = self.log()
        found: dict[int, list[tuple[float, str]]] = {number: [] for number in range(self.count)}
        for entry in re.split(r"^\.\.\.$", log, flags=re.MULTILINE):
            begun = re.search(
                rf"^001 \({self.cluster:03}\.(\d+)\.000\) (\S+ \S+) Job executing on host: "
                r".*?alias=([\w-]+)",
                entry, re.MULTILINE,
            )  # fmt: skip
            if begun:
                at = datetime.strptime(begun[2], "%Y-%m-%d %H:%M:%S").replace(tzinfo=UTC)
                found[int(begun[1])].append((at.timestamp(), begun[3]))
        return found

    def running(self, seconds: float = 90) -> dict[int, str]:
        """Job's number → the node that it runs on, once all run."""

        def all_run() -> dict[int, str]:
            runs = self.executions()
            return {n: each[-1][1] for n, each in runs.items()} if all(runs.values()) else {}

        return eventually(all_run, seconds, self.pool.master, self.pool.submit)

    def done(self, seconds: int = 240) -> dict[int, str]:
        """Job's number → its output, once all have ended, each with 0."""
        waited, text = self.pool.submit.tried(
            f"condor_wait -wait {seconds} {self.name}.log", user=USER
        )
        assert waited == 0, f"{text}{self.pool.submit.tried('condor_q -all -nobatch')[1]}"
        ended = eventually(self._left, 60, self.pool.submit)
        assert {n: row.get("ExitCode") for n, row in ended.items()} == dict.fromkeys(
            range(self.count), 0
        )
        return {
            n: self.pool.submit.sh(f"cat {self.name}.{n}.out", user=USER) for n in range(self.count)
        }

    def _left(self) -> dict[int, dict[str, Any]]:
        rows = self.attributes("ExitCode", "JobStatus")
        return rows if all(row["JobStatus"] == 4 for row in rows.values()) else {}


@contextmanager
def pool(directory: Path, text: str) -> Iterator[Pool]:
    """The pool that a pool file without a name describes; nothing is left of it afterwards."""
    with at_home(directory), taken_down(fresh("fault")) as name:
        file = write(directory / "pool.yaml", f"name: {name}\n{text}")
        well("up", file)
        yield Pool(name, file)


def started(node: Node) -> tuple[str, str]:
    """Which container it is, and when its process started last."""
    found = node.inspect()
    return found["Id"], found["State"]["StartedAt"]


@contextmanager
def in_the_way(pool: Pool, image: str) -> Iterator[None]:
    """Somebody else takes the address that has just become free."""
    name = f"{pool.name}-stranger"
    docker("run", "-d", "--name", name, "--network", pool.name, "--entrypoint", "sleep", image,
           "600")  # fmt: skip
    try:
        yield
    finally:
        docker("rm", "-f", name)


@contextmanager
def network() -> Iterator[str]:
    """A network on which a node can be given an address: its subnet is the caller's choice."""
    name = fresh("fault-net")
    for _ in range(20):
        subnet = f"10.{secrets.randbelow(100) + 100}.{secrets.randbelow(256)}.0/24"
        if docker("network", "create", "--subnet", subnet, name, may_fail=True):
            break
    try:
        yield name
    finally:
        docker("network", "rm", name)
