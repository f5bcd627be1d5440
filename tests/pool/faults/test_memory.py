"""A job whose memory is not enough, and one that is killed: never simply `completed`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from node_bench import Node, eventually
from roost_bench import Json, at_home, fresh, refused, roost, taken_down, well, write

pytestmark = pytest.mark.engine

#: Uses so many MiB, and stays if it may not use them.
EAT = """\
import os, sys, time
eaten = bytearray(int(sys.argv[1]) * 2**20)
for page in range(0, len(eaten), 4096):
    eaten[page] = 1
if f"RequestMemory = {sys.argv[2]}\\n" in open(os.environ["_CONDOR_JOB_AD"]).read():
    time.sleep(300)
print("enough")
"""


@pytest.fixture(scope="module")
def pool(image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    home = tmp_path_factory.mktemp("home")
    with (
        at_home(home), taken_down(fresh("memory")) as name, pytest.MonkeyPatch.context() as patch,
    ):  # fmt: skip
        patch.setenv("ROOST_POOL", name)
        well("up", "--executors", "1", "--cpus", "2", "--memory", "384MiB")
        yield name


def submitted(path: Path) -> str:
    return str(json.loads(well("submit", path, "--json"))["cluster"])


def eater(at: Path, megabytes: int, request: int) -> str:
    """The cluster of a job that uses so much and asked for so much."""
    write(at / "eat.py", EAT)
    return submitted(write(at / "eat.sub", f"""\
executable = /usr/bin/python3
transfer_executable = False
arguments = eat.py {megabytes} {request}
transfer_input_files = eat.py
request_memory = {request}
log = eat.log
output = eat.out
queue
"""))  # fmt: skip


def ads(pool: str, cluster: str, *, tool: str = "condor_q") -> list[Json]:
    text = well("exec", "submit", "--name", pool, "--", tool, cluster, "-json")
    found: list[Json] = json.loads(text or "[]")
    return found


def held(pool: str, cluster: str) -> Json:
    """The ad of a cluster's only job, once it is held."""

    def look() -> Json:
        (ad,) = ads(pool, cluster)
        assert ad["JobStatus"] == 5, ad["JobStatus"]
        return ad

    return eventually(look, 90, Node(f"{pool}-execute-1"))


def test_more_memory_than_it_asked_for(pool: str, tmp_path: Path) -> None:
    cluster = eater(tmp_path, 250, 64)
    ad = held(pool, cluster)
    assert (ad["HoldReasonCode"], ad["HoldReasonSubCode"]) == (21, 102)
    assert "MiB of memory, but had asked for 64 MiB" in ad["HoldReason"]
    assert "raise request_memory" in well("why", cluster)
    # what it says helps
    asks = ("exec", "submit", "--user", "user", "--")
    well(*asks, "condor_qedit", cluster, "RequestMemory", "350")
    well(*asks, "condor_release", cluster)
    assert "ended with exit code 0" in well("wait", cluster)
    assert (tmp_path / "eat.out").read_text() == "enough\n"


def test_more_memory_than_there_is(pool: str, tmp_path: Path) -> None:
    """The kernel kills it before anybody looks; HTCondor calls that a job's end."""
    executor = Node(f"{pool}-execute-1")
    daemons = {name: executor.pid(name) for name in ("condor_master", "condor_startd")}
    cluster = eater(tmp_path, 4000, 350)
    ad = held(pool, cluster)
    assert (ad["HoldReasonCode"], ad["HoldReasonSubCode"]) == (3, 137)
    assert ad["HoldReason"].startswith(f"it was killed (signal 9) on slot1_1@{pool}-execute-1: ")
    assert ad["NumJobStarts"] == 1
    assert {name: executor.pid(name) for name in daemons} == daemons
    eventually(lambda: any("the kernel killed" in line for line in executor.said()), 30, executor)
    (found,) = [row for row in json.loads(roost("doctor", "--json").stdout)
                if "the kernel killed" in row["what"]]  # fmt: skip
    assert found["where"] == f"{pool}-execute-1"
    assert "is held: it was killed" in refused(roost("wait", cluster), 1)
    well("rm", cluster)


#: Name, how the job ends, what its submit file says, and what must come of it:
#: its state, how often it was started, its hold's code and subcode.
ASKED = ("JobStatus", "NumJobStarts", "HoldReasonCode", "HoldReasonSubCode")
KILLS = (
    ("itself", "kill -9 $$", "", (5, 1, 3, 137)),
    ("child", "sh -c 'kill -9 $$'; exit $?", "", (5, 1, 3, 137)),
    ("meant", "kill -9 $$", "+RoostKeepKilled = True", (4, 1, None, None)),
    ("retried", "kill -9 $$", "max_retries = 1", (5, 2, 3, 137)),
    ("own", "exit 7", "on_exit_hold = ExitCode == 7\non_exit_hold_reason = \"seven\"\n"
     "on_exit_hold_subcode = 77", (5, 1, 3, 77)),
    ("fine", "exit 3", "on_exit_hold = ExitCode == 7", (4, 1, None, None)),
    ("term", "kill -15 $$", "", (4, 1, None, None)),
)  # fmt: skip


def test_who_is_held_and_who_is_not(pool: str, tmp_path: Path) -> None:
    clusters = {}
    for name, script, says, _ in KILLS:
        write(tmp_path / f"{name}.sh", f"#!/bin/sh\n{script}\n", 0o755)
        clusters[name] = submitted(write(tmp_path / f"{name}.sub", f"""\
executable = {name}.sh
request_memory = 32
log = {name}.log
{says}
queue
"""))  # fmt: skip

    def look() -> bool:
        for name, _, _, wanted in KILLS:
            found = ads(pool, clusters[name]) or ads(pool, clusters[name], tool="condor_history")
            assert len(found) == 1, name
            ad = found[0]
            said = tuple(map(ad.get, ASKED))
            assert said == wanted, (name, said, ad.get("HoldReason"))
        return True

    eventually(look, 120, Node(f"{pool}-execute-1"))
    assert ads(pool, clusters["own"])[0]["HoldReason"] == "seven"
    assert "+RoostKeepKilled" in well("why", clusters["itself"])


def test_killed_from_outside(pool: str, tmp_path: Path) -> None:
    cluster = submitted(write(tmp_path / "sleep.sub", """\
executable = /bin/sleep
transfer_executable = False
arguments = 1234
request_memory = 32
queue
"""))  # fmt: skip
    executor = Node(f"{pool}-execute-1")
    executor.sh(f"kill -9 {eventually(lambda: executor.pid('sleep'), 60, executor)}")
    ad = held(pool, cluster)
    assert (ad["HoldReasonCode"], ad["HoldReasonSubCode"], ad["NumJobStarts"]) == (3, 137, 1)
