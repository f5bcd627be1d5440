"""Two masters in a real pool: each is killed in its turn, and matching goes on by itself."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from node_bench import Node, docker, eventually
from roost_bench import at_home, fresh, roost, taken_down, well, write

pytestmark = pytest.mark.engine

#: What the issue promises: seconds from a master's end to the end of jobs submitted after it.
WITHIN = 120.0

POOL = """\
master: {count: 2}
execute: [{count: 2, memory: 256MiB}]
# The users' use is copied every 60 s; this test does not wait for that.
config: |
  REPLICATION_INTERVAL = 3
"""
FACTOR = "4242"
ACCOUNTS = "/var/lib/roost/accounts/Accountantnew.log"


@pytest.fixture(scope="module", autouse=True)
def pool(image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A pool with two masters that every command of this module means."""
    home = tmp_path_factory.mktemp("masters")
    with (
        at_home(home),
        taken_down(fresh("masters")) as name,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setenv("ROOST_POOL", name)
        well("up", write(home / "pool.yaml", POOL))
        yield name


def pair(pool: str) -> tuple[Node, Node]:
    """The active master and the one that stands by."""
    masters = [Node(f"{pool}-master"), Node(f"{pool}-master-2")]

    def roles() -> dict[str, Node]:
        said = {node.health(): node for node in masters}
        return said if set(said) == {"healthy", "standby"} else {}

    found = eventually(roles, 120, *masters, what=lambda: [node.health() for node in masters])
    return found["healthy"], found["standby"]


def submitted(tmp: Path, name: str, seconds: int, count: int) -> str:
    """The cluster of `count` jobs that work for so long and say who they are."""
    write(tmp / f"{name}.sh", f"#!/bin/sh\nsleep {seconds}\necho {name} $1\n", 0o755)
    submit = write(
        tmp / f"{name}.sub",
        f"executable = {name}.sh\narguments = $(Process)\noutput = {name}.$(Process).out\n"
        f"should_transfer_files = Yes\ntransfer_output_files = \"\"\nqueue {count}\n",
    )  # fmt: skip
    return str(json.loads(well("submit", submit, "--json"))["cluster"])


def ended(tmp: Path, name: str, cluster: str, count: int, within: float) -> None:
    """Every job of the cluster ended well, and its output came back."""
    done = roost("wait", cluster, "--json", "--timeout", f"{within:.0f}")
    assert done.returncode == 0, done.stderr
    codes = {job["id"]: job["exit_code"] for job in json.loads(done.stdout)["jobs"]}
    assert codes == {f"{cluster}.{number}": 0 for number in range(count)}
    outputs = [(tmp / f"{name}.{number}.out").read_text() for number in range(count)]
    assert outputs == [f"{name} {number}\n" for number in range(count)]


def knows_factor(master: Node) -> bool:
    """Whether this master has the user's priority factor; a negotiator reads it when it starts."""
    # It is a float there.
    return "PriorityFactor 424" in master.tried(f"cat {ACCOUNTS}")[1]


def asked(node: Node) -> str:
    """The collectors that this node's tools and daemons ask."""
    return node.sh("condor_config_val COLLECTOR_HOST")


def test_each_master_may_die_and_matching_goes_on(pool: str, tmp_path: Path) -> None:
    access = Node(f"{pool}-submit")
    first, second = pair(pool)
    first.sh(f"condor_userprio -setfactor user@{pool}.internal {FACTOR}")
    eventually(lambda: knows_factor(second), 60, second)

    # One job works on while its pool's active master dies.
    lasting = submitted(tmp_path, "lasting", 45, 1)
    eventually(lambda: access.sh(f"condor_q {lasting} -af JobStatus").strip() == "2", 60, access)
    clusters = {lasting: 1}
    for name, active, other in (("after-first", first, second), ("after-second", second, first)):
        clusters[goes_on(tmp_path, name, access, active, other)] = 3
        well("up")
        now = [node.name for node in pair(pool)]
        assert now == [other.name, active.name], "the one that came back stays in waiting"
    ended(tmp_path, "lasting", lasting, 1, WITHIN)
    for cluster, count in clusters.items():
        starts = access.sh(f"condor_history {cluster} -af ProcId NumJobStarts NumShadowStarts")
        assert sorted(starts.splitlines()) == [f"{number} 1 1" for number in range(count)]


def goes_on(tmp: Path, name: str, access: Node, active: Node, other: Node) -> str:
    """Kill the active master; three jobs submitted then end well. Their cluster."""
    killed = time.monotonic()
    docker("kill", active.name)
    cluster = submitted(tmp, name, 0, 3)
    ended(tmp, name, cluster, 3, WITHIN - (time.monotonic() - killed))
    # Jobs may also have followed one that ended, on its slot, with nobody's match.
    eventually(lambda: other.health() == "healthy", WITHIN - (time.monotonic() - killed), other)
    assert knows_factor(other), "what the pool knows of its users came along"
    # Nobody asks the one that is gone any more, and doctor names both.
    eventually(lambda: f"alias={active.name}>" not in asked(access), 30, access)
    findings = json.loads(roost("doctor", "--json").stdout)
    said = {(found["where"], found["severity"]) for found in findings}
    assert {(active.name, "error"), (other.name, "note")} <= said, findings
    return cluster
