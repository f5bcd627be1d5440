"""Executors that die: their jobs run elsewhere soon, and nobody waits for their slots."""

from __future__ import annotations

import time
from collections.abc import Iterator

import faults_bench
import pytest
from faults_bench import Pool
from node_bench import docker, eventually

pytestmark = pytest.mark.engine

POOL = """\
submit: {users: [john], lease: 30s}
execute: [{count: 3, cpus: 2, memory: 256MiB}]
config: |
  UPDATE_INTERVAL = 10
"""


@pytest.fixture(scope="module")
def pool(image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pool]:
    with faults_bench.pool(tmp_path_factory.mktemp("pool"), POOL) as pool:
        yield pool


def test_no_job_has_a_longer_lease_than_the_pool(pool: Pool) -> None:
    asked = {"": 30, "20": 20, "25": 25, "2400": 30, "10 * 60": 30, '"x"': 30}
    for number, (lease, given) in enumerate(asked.items()):
        more = f"job_lease_duration = {lease}\n" if lease else ""
        jobs = pool.start(f"lease{number}", 2, "true", f"hold = true\n{more}")
        rows = jobs.attributes("JobLeaseDuration")
        assert [row["JobLeaseDuration"] for row in rows.values()] == [given, given], lease
    pool.submit.sh("condor_rm -all", user="john")


def test_jobs_of_executors_that_died_run_elsewhere(pool: Pool) -> None:
    """One comes back at once at the same address, as after a restart; the other stays away."""
    jobs = pool.start("work", 6, "sleep 20; echo $1 on $(hostname)")
    where = jobs.running()
    back, gone = (pool.node("execute-1"), pool.node("execute-2"))
    victims = {n for n, node in where.items() if node in (back.name, gone.name)}
    assert len(victims) == 4, where
    address = back.ip
    killed = time.time()
    docker("kill", back.name)
    docker("start", back.name)
    docker("kill", gone.name)
    assert back.ip == address
    eventually(lambda: gone.name not in pool.machines(), 150, pool.master)
    outputs = jobs.done()
    runs = jobs.executions()
    assert {n for n, each in runs.items() if len(each) == 2} == victims, runs
    assert all(len(runs[n]) == 1 for n in where.keys() - victims), runs
    for number, output in outputs.items():
        began, node = runs[number][-1]
        assert output == f"{number} on {node}\n"
        if number in victims:
            assert node != gone.name
            assert began - killed <= 120, runs
