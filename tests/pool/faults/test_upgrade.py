"""Another release over a pool that works: nothing is lost, and no job runs twice."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from gated import Gated, running
from roost_bench import at_home, fresh, ids, taken_down, well

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
