"""The access point dies while jobs run, and `roost up` heals what is missing."""

from __future__ import annotations

import json
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from node_bench import Node, eventually
from roost_bench import ROOST, ask, at_home, fresh, ids, roost, taken_down, well, write

pytestmark = pytest.mark.engine

#: A lease that no machine is too slow for: here jobs must go on, not run again. A master that was
#: made anew knows an executor after UPDATE_INTERVAL.
POOL = """\
name: {name}
submit: {{lease: 30m}}
execute: [{{name: execute, count: 2, cpus: 1, memory: 256MiB}}]
config: |
  UPDATE_INTERVAL = 5
"""
#: Runs until it may end, and leaves a word on its executor each time that it begins.
WORK = """\
echo $1.$2 >>/tmp/runs
until [ -e /tmp/go.$1 ]; do sleep 0.5; done
echo ran $2
exit $3
"""
JOB = """\
executable = /bin/sh
transfer_executable = False
arguments = work.sh {name} $(ProcId) {code}
transfer_input_files = work.sh
transfer_output_files = ""
request_memory = 32
output = {name}.$(ProcId).out
log = {name}.log
queue {count}
"""
HUGE = "executable = /bin/true\nrequest_cpus = 99\nqueue\n"
QUICK = """\
executable = /bin/true
transfer_executable = False
transfer_output_files = ""
log = quick.log
queue
"""


class Pool:
    def __init__(self, name: str) -> None:
        self.name = name
        self.access = Node(f"{name}-submit")
        self.executors = [Node(f"{name}-execute-{number}") for number in (1, 2)]

    def submit(self, file: Path) -> int:
        return int(json.loads(well("submit", file, "--json"))["cluster"])

    def work(self, directory: Path, name: str, count: int, code: int = 0) -> int:
        write(directory / "work.sh", WORK)
        file = directory / f"{name}.sub"
        return self.submit(write(file, JOB.format(name=name, count=count, code=code)))

    def let_go(self, name: str) -> None:
        for node in self.executors:
            node.sh(f"touch /tmp/go.{name}")

    def runs(self, name: str) -> dict[str, int]:
        """Job's number → how often it began, wherever."""
        said = "".join(node.sh("cat /tmp/runs 2>/dev/null || true") for node in self.executors)
        words = [word.rpartition(".") for word in said.split()]
        return dict(Counter(number for whose, _, number in words if whose == name))

    def queue(self, cluster: int) -> dict[str, int]:
        """Job's number → its JobStatus, of those in the queue."""
        status, said = self.access.tried(
            f"condor_q -af:j JobStatus -constraint 'ClusterId=={cluster}' -allusers"
        )
        assert status == 0, said
        rows = [line.split() for line in said.splitlines()]
        return {id.partition(".")[2]: int(state) for id, state in rows}

    def ended(self, cluster: int) -> list[tuple[int, int]]:
        """(ProcId, ExitCode) for every time that one of them is in the history."""
        said = self.access.sh(f"condor_history {cluster} -af ProcId ExitCode")
        return sorted((int(proc), int(code)) for proc, code in map(str.split, said.splitlines()))


@pytest.fixture(scope="module")
def pool(image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pool]:
    home = tmp_path_factory.mktemp("home")
    with (
        at_home(home), taken_down(fresh("heal")) as name, pytest.MonkeyPatch.context() as patch,
    ):  # fmt: skip
        patch.setenv("ROOST_POOL", name)
        well("up", write(home / "pool.yaml", POOL.format(name=name)))
        yield Pool(name)


def test_what_runs_goes_on_what_waits_waits_and_what_is_done_is_kept(
    pool: Pool, tmp_path: Path
) -> None:
    """The access point is killed and started; then removed, and made anew by `roost up`."""
    pool.let_go("done")
    done = pool.work(tmp_path, "done", 1, code=3)
    eventually(lambda: pool.ended(done) == [(0, 3)], 120, pool.access)
    cluster = pool.work(tmp_path, "work", 4, code=7)
    eventually(lambda: sum(pool.runs("work").values()) == 2, 120, pool.access)
    first = pool.runs("work")
    expected = {number: 2 if number in first else 1 for number in "0123"}

    def as_before() -> bool:
        found = pool.queue(cluster)
        assert found == expected, found
        return True

    eventually(as_before, 60, pool.access)
    with subprocess.Popen(
        [ROOST, "wait", str(cluster), "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True,
    ) as waiting:  # fmt: skip
        try:
            ask("kill", pool.access.name)
            ask("start", pool.access.name)
            eventually(as_before, 120, pool.access)

            before = ids(pool.name)
            ask("rm", "-f", pool.access.name)
            well("up")
            after = ids(pool.name)
            assert {name for name in after if before[name] != after[name]} == {pool.access.name}
            assert after.keys() == before.keys()
            eventually(as_before, 120, pool.access)
            # Numbers that were given are not given again.
            more = pool.submit(write(tmp_path / "huge.sub", HUGE))
            assert more == cluster + 1
            pool.let_go("work")
            said, told = waiting.communicate(timeout=300)
        finally:
            waiting.kill()
    assert waiting.returncode == 1, told  # their exit code is 7
    assert "`roost up` starts what does not run" in told
    assert [(job["id"], job["exit_code"]) for job in json.loads(said)["jobs"]] == [
        (f"{cluster}.{number}", 7) for number in range(4)
    ]
    outputs = [(tmp_path / f"work.{number}.out").read_text() for number in range(4)]
    assert outputs == [f"ran {number}\n" for number in range(4)]
    assert pool.runs("work") == dict.fromkeys("0123", 1)
    assert pool.ended(cluster) == [(number, 7) for number in range(4)]
    late = roost("wait", str(done), "--json")
    assert late.returncode == 1, late.stderr
    (kept,) = json.loads(late.stdout)["jobs"]
    assert (kept["state"], kept["exit_code"]) == ("completed", 3)
    assert (tmp_path / "done.0.out").read_text() == "ran 0\n"
    well("rm", str(more))


def test_a_job_that_was_called_completed_stays_so(pool: Pool, tmp_path: Path) -> None:
    """Killed in that very moment: its files have been fetched and removed already."""
    pool.let_go("over")
    file = write(tmp_path / "over.sub", JOB.format(name="over", count=2, code=0))
    write(tmp_path / "work.sh", WORK)
    found = json.loads(well("submit", "--wait", file, "--json"))
    ask("kill", pool.access.name)
    assert [job["exit_code"] for job in found["jobs"]] == [0, 0]
    cluster = int(found["jobs"][0]["id"].partition(".")[0])
    ask("start", pool.access.name)
    eventually(lambda: pool.queue(cluster) == {}, 60, pool.access)
    # A job that comes later is through: by then, whatever the schedd wanted to do is done.
    assert "exit code 0" in well("submit", "--wait", write(tmp_path / "quick.sub", QUICK))
    assert pool.queue(cluster) == {}
    assert pool.ended(cluster) == [(0, 0), (1, 0)]
    assert pool.runs("over") == {"0": 1, "1": 1}


@pytest.fixture(scope="module")
def queued(pool: Pool, tmp_path_factory: pytest.TempPathFactory) -> int:
    """A job that nothing can run: it waits through all that befalls the pool."""
    return pool.submit(write(tmp_path_factory.mktemp("queued") / "huge.sub", HUGE))


@pytest.mark.parametrize(
    ("fault", "anew"),
    [
        (["kill {}-master", "kill {}-execute-1"], ""),
        (["stop {}-submit", "rm -f {}-execute-2"], "execute-2"),
        (["pause {}-submit", "pause {}-execute-1", "network disconnect {} {}-execute-2"], ""),
        (["rm -f {}-submit", "volume rm {}-home"], "submit"),
        (["rm -f {}-master", "volume rm {}-state"], "master"),
        (["stop {}-submit {}-execute-1 {}-execute-2 {}-master", "network rm {}"], ""),
    ],
    ids=["killed", "removed", "paused", "home", "master", "network"],
)
def test_up_heals_exactly_what_is_missing(
    pool: Pool, queued: int, tmp_path: Path, fault: list[str], anew: str
) -> None:
    before = ids(pool.name)
    for command in fault:
        ask(*command.replace("{}", pool.name).split())
    well("up")
    after = ids(pool.name)
    assert after.keys() == before.keys()
    changed = {name for name in after if after[name] != before[name]}
    assert changed == ({f"{pool.name}-{anew}"} if anew else set())
    assert pool.queue(queued) == {"0": 1}
    assert "exit code 0" in well("submit", "--wait", write(tmp_path / "quick.sub", QUICK))
