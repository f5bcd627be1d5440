"""A black hole in a real pool: an executor that fails every job, beside two that do not.

And why jobs are where they are, as `roost why` says, on the same pool.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from node_bench import eventually
from roost_bench import Json, ask, at_home, fresh, refused, roost, taken_down, well, write

pytestmark = pytest.mark.engine

#: What is broken about a node, for jobs and no daemon: its own programs are read-only.
BROKEN = "/var/tmp/broken"
COUNT = f"#!/bin/sh\n[ ! -e {BROKEN} ] || exit 9\nsleep 0.4\n"


#: Two limits that let nothing through.
POOL = """\
execute: [{name: execute, count: 3, cpus: 1, memory: 512MiB}]
config: |
  LICENSE_LIMIT = 0
  GROUP_NAMES = group_none
  GROUP_QUOTA_group_none = 0
"""


def up(directory: Path, name: str) -> str:
    well("up", write(directory / "pool.yaml", f"name: {name}\n{POOL}"))
    return name


@pytest.fixture(scope="module", autouse=True)
def pool(image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A pool with three executors that every command of this module means."""
    with (
        at_home(tmp_path_factory.mktemp("sick")),
        taken_down(fresh("sick")) as name,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setenv("ROOST_POOL", name)
        yield up(tmp_path_factory.mktemp("pool"), name)


def ran(tmp: Path, script: str, count: int, more: str = "") -> tuple[Counter[int], list[Json]]:
    """Exit code → how many of `count` jobs ended with it; and the jobs, to their end."""
    write(tmp / "run.sh", script, 0o755)
    submit = write(
        tmp / "run.sub",
        "executable = run.sh\nshould_transfer_files = Yes\ntransfer_output_files = \"\"\n"
        f"{more}\nqueue {count}\n",
    )  # fmt: skip
    cluster = json.loads(well("submit", submit, "--json"))["cluster"]
    codes = json.loads(roost("wait", str(cluster), "--json").stdout)["jobs"]
    jobs = json.loads(well("q", "--all", "--json"))
    mine = [job for job in jobs if job["id"].split(".")[0] == str(cluster)]
    assert len(mine) == len(codes) == count
    return Counter(job["exit_code"] for job in codes), mine


def node(job: Json) -> str:
    return str(job["host"].rpartition("@")[2])


def sick() -> dict[str, str]:
    """Node → why it is sick, as doctor says."""
    return {
        finding["where"]: finding["what"]
        for finding in json.loads(roost("doctor", "--json").stdout)
        if "it is sick" in finding["what"]
    }


def test_a_black_hole_is_noticed_drained_and_named(pool: str, tmp_path: Path) -> None:
    hole = f"{pool}-execute-2"
    ask("exec", hole, "touch", BROKEN)
    codes, jobs = ran(tmp_path, COUNT, 30)
    # the hole alone would take all thirty within two seconds
    assert codes[0] + codes[9] == 30
    assert 5 <= codes[9] <= 20
    assert {node(job) for job in jobs if job["exit_code"] == 9} == {hole}
    assert {node(job) for job in jobs if job["exit_code"] == 0} == {
        f"{pool}-execute-1", f"{pool}-execute-3",
    }  # fmt: skip
    found = eventually(sick, 60)
    assert set(found) == {hole}
    assert (
        "jobs all failed within seconds (exit code 9), while jobs like them do well"
        in (found[hole])
    )
    assert roost("doctor").returncode == 1
    status = well("status")
    assert f"{hole} is sick and takes no more jobs: its last" in status
    assert next(line.split()[3] for line in status.splitlines() if line.startswith(hole)) == "sick"
    assert "this node is sick and takes no more jobs" in well("logs", hole)

    codes, jobs = ran(tmp_path, COUNT, 3)
    assert codes == {0: 3}
    assert hole not in {node(job) for job in jobs}

    ask("exec", hole, "rm", BROKEN)
    ask("restart", hole)
    codes, jobs = ran(tmp_path, COUNT, 1, f'requirements = Machine == "{hole}"')
    assert codes == {0: 1}
    assert sick() == {}


def test_a_users_broken_jobs_drain_nobody(pool: str, tmp_path: Path) -> None:
    codes, jobs = ran(tmp_path, "#!/bin/sh\nexit 3\n", 30)
    assert codes == {3: 30}
    assert len({node(job) for job in jobs}) > 1
    codes, _ = ran(tmp_path, COUNT, 3)
    assert codes == {0: 3}
    assert sick() == {}
    for number in (1, 2, 3):
        assert "is sick and takes" not in well("logs", f"execute-{number}", "--tail", "400")


# --- why ---------------------------------------------------------------------------------------


def submitted(tmp: Path, more: str, count: int = 1) -> str:
    """The cluster of jobs that would sleep for long."""
    submit = write(
        tmp / "sleep.sub",
        "executable = /bin/sleep\ntransfer_executable = false\narguments = 300\n"
        f"request_memory = 16\n{more}\nqueue {count}\n",
    )
    return str(json.loads(well("submit", submit, "--json"))["cluster"])


def test_why(pool: str, tmp_path: Path) -> None:
    """All at once, because each is known only after the negotiator has looked at it."""
    cases = {
        'requirements = Machine == "nowhere"':
            'no executor meets this part of its requirements: Machine == "nowhere"',
        f'requirements = Machine == "{pool}-execute-1" && Name == "slot1@{pool}-execute-2"':
            "no executor meets these parts of its requirements together: "
            f'Machine == "{pool}-execute-1" (rules out 2 of 3), '
            f'Name == "slot1@{pool}-execute-2" (rules out 2 of 3)',
        "concurrency_limits = license": "as many jobs as the pool allows use license already",
        "accounting_group = group_none\naccounting_group_user = user":
            "its accounting group group_none may use 0 CPUs and uses 0",
        "deferral_time = 2000000000": "it asked not to start before 2033-05-",
    }  # fmt: skip
    clusters = {submitted(tmp_path, more): (more, text) for more, text in cases.items()}
    for cluster, (more, text) in clusters.items():
        eventually(
            lambda cluster=cluster, text=text: text in well("why", cluster),  # type: ignore[misc]
            60,
            what=lambda cluster=cluster, more=more: f"{more}: {well('why', cluster)}",  # type: ignore[misc]
        )
    well("rm", *clusters)


def test_why_of_several_jobs_while_nothing_is_matched(pool: str, tmp_path: Path) -> None:
    cluster = submitted(tmp_path, "", 5)

    def states() -> Counter[str]:
        jobs = json.loads(well("q", "--json"))
        return Counter(job["state"] for job in jobs if job["id"].startswith(f"{cluster}."))

    eventually(lambda: states() == {"running": 3, "idle": 2}, 60, what=states)
    found = json.loads(well("why", cluster, "--json"))
    groups = {group["state"]: group for group in (found, *found["rest"])}
    assert set(groups) == {"running", "idle"}
    assert len(groups["running"]["jobs"]) == 3
    assert len(groups["idle"]["jobs"]) == 2
    (reason,) = groups["idle"]["reasons"]
    assert reason.startswith("every executor that is large enough is busy (3 slots run jobs); ")
    (running,) = groups["running"]["reasons"]
    assert running.startswith("they run: 1 on ")
    last = groups["idle"]["jobs"][1]
    assert "come before it: 1 of the same user" in well("why", last)

    well("exec", "master", "condor_off", "-daemon", "negotiator")
    gone = "nothing is matched, because the collector knows no negotiator"
    eventually(lambda: gone in well("why", last), 60, what=lambda: well("why", last))
    well("exec", "master", "condor_on", "-daemon", "negotiator")
    well("rm", cluster)
    assert "there is no job 99999, neither in the queue" in refused(roost("why", "99999"), 1)
