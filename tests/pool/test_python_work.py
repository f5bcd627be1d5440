"""Functions of a program in a real pool: a job for each, and workers that take many."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import CancelledError, wait
from pathlib import Path

import pytest
from roost_bench import ask, at_home, fresh, held

from roost import BadInput, JobError, Pool, Workers

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory, image: str) -> Iterator[Pool]:
    name = fresh("work")
    with at_home(tmp_path_factory.mktemp("state")):
        with Pool.up(executors=2, name=name, memory="1GiB") as pool:
            yield pool
        assert held(name) == set()


def left(pool: Pool) -> str:
    """What the user has on the access point but the cached Python: jobs and files."""
    files = pool.exec("submit", ["sh", "-c", "cd; ls roost"], user="user").check().text
    return files + " ".join(f"{job.id} {job.state}" for job in pool.queue.jobs())


def until_nothing_is_left(pool: Pool) -> None:
    until = time.monotonic() + 120
    while left(pool):
        assert time.monotonic() < until, left(pool)
        time.sleep(0.5)


def test_one_job_for_each_task(pool: Pool) -> None:
    def where(item: int) -> tuple[int, str, tuple[int, ...]]:
        import socket

        if item == 2:
            raise ValueError(f"not {item}")
        return item * item, socket.gethostname(), sys.version_info[:3]

    with pool.executor(memory="200MiB", submit={"JobPrio": 5}) as executor:
        tasks = [executor.submit(where, item) for item in range(4)]
        dead = executor.submit(os._exit, 3)
        assert isinstance(tasks[2].exception(timeout=300), ValueError)
        assert "in where" in str(tasks[2].exception().__cause__)  # type: ignore[union-attr]
        for item in (0, 1, 3):
            square, host, version = tasks[item].result(timeout=300)
            assert square == item * item
            assert host.startswith(f"{pool.name}-execute-")
            assert version == sys.version_info[:3]  # this program's own Python, not the image's
        with pytest.raises(JobError, match="ended without a result"):
            dead.result(timeout=300)
    assert left(pool) == ""
    with pytest.raises(RuntimeError, match="was shut down"):
        executor.submit(where, 1)


def test_a_task_that_waits_is_taken_out_of_the_queue(pool: Pool) -> None:
    with pool.executor(submit={"requirements": "False"}) as executor:
        never = executor.submit(time.sleep, 1)
        until = time.monotonic() + 120
        while not pool.queue.jobs():
            assert time.monotonic() < until
            time.sleep(0.2)
        assert never.cancel()
        assert wait([never], timeout=60).done == {never}
        with pytest.raises(CancelledError):
            never.result()
    assert left(pool) == ""
    # what runs goes, too, when the program has no use for it any more
    with pytest.raises(ZeroDivisionError), pool.executor() as executor:
        running = executor.submit(time.sleep, 600)
        while not running.running():
            assert time.monotonic() < until + 300
            time.sleep(0.2)
        raise ZeroDivisionError
    assert running.exception() is not None
    until_nothing_is_left(pool)


def test_tasks_outlive_an_access_point_that_starts_again(pool: Pool) -> None:
    def slow(item: int) -> int:
        time.sleep(5)
        return item + 1

    killed: list[str] = []

    def kill(done: int, _total: int) -> None:
        if not killed:
            killed.append(ask("restart", "--time", "0", pool.access_point.name))

    assert pool.map(slow, range(4), progress=kill) == [1, 2, 3, 4]
    assert killed
    until_nothing_is_left(pool)


def test_map_and_its_input(pool: Pool) -> None:
    seen: list[tuple[int, int]] = []
    assert pool.map(lambda item: item + 1, [1, 2, 3], progress=lambda *at: seen.append(at)) == [
        2,
        3,
        4,
    ]
    assert seen == [(1, 3), (2, 3), (3, 3)]
    for options, complaint in (
        ({"packages": ["no-such-thing"]}, "no package 'no-such-thing'"),
        ({"memory": "much"}, "memory"),
        ({"workers": 0}, "0 workers"),
        ({"user": "nobody-here"}, "no user 'nobody-here'"),
        ({"submit": {"executable": "x"}}, "'executable' is roost's"),
        ({"submit": {"request_cpus": "many of them"}}, "HTCondor refused the tasks"),
    ):
        with pytest.raises(BadInput, match=complaint):
            pool.map(abs, [1], **options)
    assert left(pool) == ""


def test_workers_take_many_tasks(pool: Pool, tmp_path: Path) -> None:
    def tell(item: int) -> int:
        if item == 4567:
            raise LookupError(f"not {item}")
        return -item

    seen: list[tuple[int, int]] = []
    with pool.executor(workers=2, memory="300MiB") as workers:
        assert isinstance(workers, Workers)
        answers = workers.map_all(tell, range(3000), lambda *at: seen.append(at))
        assert answers == [-item for item in range(3000)]
        assert seen[-1] == (3000, 3000)
        assert len(seen) > 5
        with pytest.raises(LookupError, match="not 4567"):
            workers.map_all(tell, range(5000))
        assert workers.submit(tell, 7).result(timeout=120) == -7
        assert list(workers.map(tell, [1, 2])) == [-1, -2]
        assert {job.state for job in pool.queue.jobs()} == {"running"}
    assert len(pool.queue.history()) >= 2
    until_nothing_is_left(pool)


def test_a_program_that_is_killed_leaves_no_jobs(pool: Pool, tmp_path: Path) -> None:
    program = f"""
import time
from roost import Pool
pool = Pool.attach({pool.name!r})
tasks, workers = pool.executor(), pool.executor(workers=1, memory="200MiB")
print(workers.submit(abs, -5).result(), flush=True)
task = tasks.submit(time.sleep, 900)
while not task.running():
    time.sleep(0.1)
print("both run", flush=True)
time.sleep(900)
"""
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert [process.stdout.readline() for _ in range(2)] == ["5\n", "both run\n"]
        assert len(pool.queue.jobs()) == 2
        process.send_signal(signal.SIGKILL)
    until_nothing_is_left(pool)
