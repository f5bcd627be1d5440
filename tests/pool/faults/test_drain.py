"""Stopping is draining: executors of a real pool go while jobs run, and no job notices."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from gated import Gated, running
from node_bench import eventually
from roost_bench import ask, at_home, fresh, ids, refused, roost, taken_down, well

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module", autouse=True)
def pool(image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A pool with three executors for one job each, that every command of this module means."""
    with (
        at_home(tmp_path_factory.mktemp("drain")),
        taken_down(fresh("drain")) as name,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setenv("ROOST_POOL", name)
        well("up", "--executors", "3", "--cpus", "1", "--memory", "512MiB")
        yield name


def executors(pool: str) -> set[str]:
    return {node for node in ids(pool) if "-execute-" in node}


def drains(node: str) -> bool:
    """Whether it takes no jobs, as the collector knows."""
    pool = node.partition("-execute-")[0]
    asked = ("condor_status", "-const", f'Machine == "{node}"', "-af", "RoostDraining")
    return "true" in ask("exec", f"{pool}-submit", *asked)


def test_what_cannot_be_drained(pool: str) -> None:
    assert "no node 'exekute-1'; did you mean 'execute-1'?" in refused(roost("drain", "exekute-1"))
    assert "runs no jobs: it is the pool's master node" in refused(roost("drain", "master"))
    assert "the limit is 'soon', not a duration" in refused(
        roost("drain", "execute-1", "--limit", "soon")
    )
    assert len(executors(pool)) == 3


def test_an_interrupted_drain_is_taken_back(pool: str, tmp_path: Path) -> None:
    job = Gated(pool, tmp_path, "stays")
    node = job.runs()
    with running("drain", node) as drain:
        drain.until(f"{node} waiting: for {job.id} of user")
        eventually(lambda: drains(node), 60)
        drain.interrupt()
        assert drain.end()[0] == 130
    assert f"{node} resumed: it takes jobs again" in drain.said
    assert "Traceback" not in drain.said
    eventually(lambda: not drains(node), 60)
    job.open()
    job.ended_in_one_run()
    after = Gated(pool, tmp_path, "after", f'requirements = Machine == "{node}"')
    assert after.runs() == node
    after.open()
    after.ended_in_one_run()
    assert len(executors(pool)) == 3


def test_after_the_limit_its_job_runs_elsewhere(pool: str, tmp_path: Path) -> None:
    job = Gated(pool, tmp_path, "moves")
    node = job.runs()
    before = executors(pool)
    done = json.loads(well("drain", node, "--limit", "1s", "--json"))
    assert done == {"pool": pool, "nodes": [node], "vacated": [job.id]}
    assert executors(pool) == before - {node}
    assert job.runs() in before - {node}
    job.open()
    assert job.ended()["NumShadowStarts"] == 2
    well("scale", "3")


def test_scaling_down_drains_what_is_busy_and_no_job_starts_there(
    pool: str, tmp_path: Path
) -> None:
    old, young = Gated(pool, tmp_path, "old"), Gated(pool, tmp_path, "young")
    stays, goes = old.runs(), young.runs()
    if old.ad()["JobCurrentStartDate"] >= young.ad()["JobCurrentStartDate"]:
        stays, goes = max(stays, goes), min(stays, goes)  # as old: then the higher number goes
    idle = (executors(pool) - {stays, goes}).pop()
    by_node = {old.host(): old, young.host(): young}
    with running("scale", "1") as scale:
        scale.until(" waiting: for ")
        gone = next(node for node in by_node if f"{node} waiting: for" in scale.said)
        scale.until(f"{idle} drained")
        # Two executors are empty or about to be, and none takes it.
        third = Gated(pool, tmp_path, "third")
        by_node[gone].open()
        status, said = scale.end()
    assert (status, said) == (0, f"The pool {pool} has: execute 1.\n")
    (left,) = executors(pool)
    assert {left} == set(by_node) - {gone}
    by_node[gone].ended_in_one_run()
    assert third.state == "idle"
    by_node[left].open()
    by_node[left].ended_in_one_run()
    assert third.runs() == left
    third.open()
    third.ended_in_one_run()
    # What is gone stays gone, until a pool file or a number says otherwise.
    before = ids(pool)
    well("up")
    assert ids(pool) == before


def test_jobs_have_as_long_to_end_as_the_engine_waits(pool: str) -> None:
    (node,) = executors(pool)
    vacate = int(ask("exec", node, "condor_config_val", "MachineMaxVacateTime"))
    stop = int(ask("inspect", "--format", "{{.Config.StopTimeout}}", node))
    assert vacate + 5 < stop
