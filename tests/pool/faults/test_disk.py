"""Full disks: the executor's, the spool, the users' homes."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from node_bench import Node, eventually
from roost_bench import Json, ask, at_home, fresh, refused, roost, taken_down, well, write

from roost_node.vocab import SPOOL_FULL

pytestmark = pytest.mark.engine

#: Jobs run in the 64 MiB that Docker gives every container for shared memory.
POOL = """\
name: {name}
execute: [{{name: execute, count: 1, cpus: 1, memory: 300MiB}}]
config: |
  EXECUTE = /dev/shm
"""


@pytest.fixture(scope="module")
def pool(image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with at_home(tmp_path_factory.mktemp("home")) as home, taken_down(fresh("disk")) as name:
        for volume, size in (("spool", "4m"), ("home", "16m")):
            ask("volume", "create", "--label", f"roost.pool={name}", "--driver", "local",
                "--opt", "type=tmpfs", "--opt", "device=tmpfs", "--opt", f"o=size={size}",
                f"{name}-{volume}")  # fmt: skip
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("ROOST_POOL", name)
            well("up", write(home.parent / "pool.yaml", POOL.format(name=name)))
            yield name


def submitted(path: Path) -> str:
    return str(json.loads(well("submit", path, "--json"))["cluster"])


def jobs() -> dict[str, Json]:
    return {job["id"]: job for job in json.loads(well("q", "--all", "--json"))}


def fill(node: Node, directory: str) -> None:
    status, said = node.tried(f"dd if=/dev/zero of={directory}/filled bs=4k")
    assert status != 0
    assert "No space left" in said


def test_a_job_that_fills_the_executors_disk(pool: str, tmp_path: Path) -> None:
    executor = Node(f"{pool}-execute-1")
    startd = executor.pid("condor_startd")
    write(tmp_path / "fill.sh", "dd if=/dev/zero of=big bs=1M count=200; sleep 300\n")
    cluster = submitted(write(tmp_path / "fill.sub", """\
executable = /bin/sh
transfer_executable = False
arguments = fill.sh
transfer_input_files = fill.sh
request_disk = 10 MB
queue
"""))  # fmt: skip
    said = refused(roost("wait", cluster, "--timeout", "120"), 1)
    assert "MiB of disk, but had asked for 10 MiB; raise request_disk" in said
    assert jobs()[f"{cluster}.0"]["state"] == "held"
    # the node is well, and empty
    assert executor.pid("condor_startd") == startd
    eventually(lambda: executor.sh("ls -A /dev/shm") == "", 30, executor)
    write(tmp_path / "next.sub", "executable = /bin/true\ntransfer_executable = False\nqueue\n")
    assert "exit code 0" in well("submit", "--wait", tmp_path / "next.sub")
    well("rm", cluster)


def test_a_full_spool(pool: str, tmp_path: Path) -> None:
    access, executor = Node(f"{pool}-submit"), Node(f"{pool}-execute-1")
    # They end while the spool is full, but not before anybody has noticed that.
    write(tmp_path / "run.sh", """\
echo $1 >>/tmp/runs
until [ -e /tmp/go ]; do sleep 0.5; done
echo ran $1
exit 7
""")  # fmt: skip
    write(tmp_path / "run.sub", """\
executable = /bin/sh
transfer_executable = False
arguments = run.sh $(ClusterId).$(ProcId)
transfer_input_files = run.sh
output = $(ProcId).out
log = run.log
queue 4
""")  # fmt: skip
    before = submitted(tmp_path / "run.sub")
    eventually(lambda: executor.tried("cat /tmp/runs")[0] == 0, 60, executor)
    fill(access, "/var/spool/condor")

    access.sh(
        "cat >plain.sub", user="user",
        stdin="executable = /bin/true\ntransfer_executable = False\nqueue\n",
    )  # fmt: skip

    def plainly() -> bool:
        status, said = access.tried("condor_submit plain.sub", user="user")
        assert status != 0
        assert f"ERROR: {SPOOL_FULL}" in said, said  # else the schedd is just being started again
        return True

    # Whoever asks is told, as soon as the node has noticed.
    eventually(lambda: SPOOL_FULL in access.said(), 60, access)
    eventually(plainly, 60, access)
    assert access.health() == SPOOL_FULL
    for _ in range(2):
        assert SPOOL_FULL in refused(roost("submit", tmp_path / "run.sub"), 1)
    executor.sh("touch /tmp/go")
    findings = json.loads(roost("doctor", "--json").stdout)
    assert [row["where"] for row in findings if row["what"] == SPOOL_FULL] == [f"{pool}-submit"]
    assert access.running
    assert access.inspect()["RestartCount"] == 0

    access.sh("rm /var/spool/condor/filled")
    healthy = eventually(lambda: access.health() == "healthy", 60, access)
    assert healthy
    done = eventually(lambda: roost("submit", "--json", tmp_path / "run.sub").stdout, 30, access)
    after = str(json.loads(done)["cluster"])
    assert int(after) > int(before)
    for cluster in (before, after):
        waited = roost("wait", "--json", cluster)
        assert waited.stdout, waited.stderr
        ended = json.loads(waited.stdout)["jobs"]
        assert [(job["id"], job["exit_code"]) for job in ended] == [
            (f"{cluster}.{n}", 7) for n in range(4)
        ]
        assert [(tmp_path / f"{n}.out").read_text() for n in range(4)] == [
            f"ran {cluster}.{n}\n" for n in range(4)
        ]
    # Every job ended once; none ran twice but, if it had only begun, the one that ran when the disk
    # was full; and nothing that was refused ever did.
    runs = Counter(executor.sh("cat /tmp/runs").split())
    assert set(runs) == {f"{cluster}.{n}" for cluster in (before, after) for n in range(4)}
    assert [job for job in runs if runs[job] != 1] in ([], [f"{before}.0"]), runs
    history = access.sh("condor_history -af ClusterId ProcId").splitlines()
    assert len(history) == len(set(history))
    assert {job.split(".")[0] for job in jobs()} >= {before, after}


def test_full_homes(pool: str, tmp_path: Path) -> None:
    access = Node(f"{pool}-submit")
    write(tmp_path / "large", "x" * 2**20)
    write(tmp_path / "a.sub",
          "executable = /bin/true\ntransfer_executable = False\n"
          "transfer_input_files = large\nqueue\n")  # fmt: skip
    left = access.sh("find /home/user/roost | sort")
    fill(access, "/home")
    said = refused(roost("submit", tmp_path / "a.sub"), 1)
    assert said.startswith(f"there is no space left for jobs' files in /home on {pool}-submit; ")
    assert access.sh("find /home/user/roost | sort") == left
    access.sh("rm /home/filled")
    assert "exit code 0" in well("submit", "--wait", tmp_path / "a.sub")
