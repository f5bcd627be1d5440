"""Another release over a pool that works: nothing is lost, and no job runs twice."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from gated import Gated, running
from node_bench import docker, eventually
from roost_bench import ask, at_home, fresh, ids, taken_down, well

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def pool(image: str, image_forky: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A pool of HTCondor 23 with two executors for one job each."""
    with (
        at_home(tmp_path_factory.mktemp("upgrade")),
        taken_down(fresh("upgrade")) as name,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setenv("ROOST_POOL", name)
        well("up", "--executors", "2", "--cpus", "1", "--memory", "512MiB")
        yield name


def versions(pool: str) -> dict[str, str]:
    """Node → HTCondor's number in it, such as `23`."""
    return {
        node.removeprefix(f"{pool}-"): well("exec", node, "condor_version").split()[1].split(".")[0]
        for node in ids(pool)
    }


def test_from_node_to_node(pool: str, tmp_path: Path) -> None:
    first, second = f"{pool}-execute-1", f"{pool}-execute-2"
    on = 'requirements = Machine == "{}"'
    one = Gated(pool, tmp_path, "one", on.format(first))
    two = Gated(pool, tmp_path, "two", on.format(second))
    assert (one.runs(), two.runs()) == (first, second)
    # Waits in the queue until an executor of the new release takes it, and outlives all that goes.
    three = Gated(pool, tmp_path, "three", on.format(first))
    never = Gated(pool, tmp_path, "never", "request_cpus = 99")
    with running("up", "--release", "forky") as up:
        up.until(f"{first} waiting: for {one.id} of user")
        one.open()
        # The second's job runs on while the first is made anew.
        up.until(f"{second} waiting: for {two.id} of user")
        assert versions(pool) == {
            "execute-1": "25", "execute-2": "23", "master": "23", "submit": "23"
        }  # fmt: skip
        assert three.runs() == first
        two.open()
        status, said = up.end(600)
    assert (status, said) == (0, f"The pool {pool} is up: 2 executors, on docker.\n"), up.said
    assert set(versions(pool).values()) == {"25"}
    removed = [line.split()[0] for line in up.said.splitlines() if line.endswith(" removed")]
    assert removed == [first, second, f"{pool}-submit", f"{pool}-master"]
    assert three.runs() == first
    three.open()
    for job in (one, two):
        job.ended_in_one_run()
    # The third has seen another access point, whose shadow took it over: it ran on.
    three.ended_in_one_run(shadows=2)
    assert never.state == "idle"
    queue = {job["id"] for job in json.loads(well("q", "--json"))}
    assert queue == {never.id}


def test_the_new_release_gives_up_an_executor_that_is_cut_off(pool: str, tmp_path: Path) -> None:
    """HTCondor 25 has other rules for this than 23: its job runs elsewhere, and ends there."""
    well("up", "--release", "forky")  # nothing to do, unless this test runs alone
    assert set(versions(pool).values()) == {"25"}
    job = Gated(pool, tmp_path, "cut")
    lost = job.runs()
    # Until the first report of a job's side, some 5 s, only TCP itself notices (140 s).
    log = f"grep ^006 {job.ad()['UserLog']} || :"
    eventually(lambda: ask("exec", f"{pool}-submit", "sh", "-c", log), 60, what=job.ad)
    docker("network", "disconnect", pool, lost)
    eventually(lambda: job.host() not in ("", lost), 240, what=job.ad)
    other = job.runs()
    eventually(lambda: "gated" not in ask("top", lost, "-eo", "pid,args"), 120, what=job.ad)
    job.open(other)
    job.ended()
    begun = [line for line in (tmp_path / "cut.log").read_text().splitlines() if line[:4] == "001 "]
    assert [lost in begun[0], other in begun[1]] == [True, True], begun
    assert len(begun) == 2
