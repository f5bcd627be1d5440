"""A pool on the emulator of Marathon, by the roost command: one pool, through its whole life."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from gated import Gated, running
from marathon_bench import Marathon, marathon
from node_bench import eventually
from roost_bench import ask, at_home, fresh, refused, roost, well, write

pytestmark = pytest.mark.engine

POOL = """\
htcondor: {{image: '{image}'}}
submit: {{users: [john], memory: 1GiB}}
master: {{memory: 512MiB}}
execute: [{{name: cpu, count: 2, cpus: 0.5, memory: 256MiB}}]
network: {{name: {network}}}
marathon: {{constraints: {{cpu: [[hostname, UNIQUE]]}}}}
"""


class Pool:
    """The pool on its Marathon; every test leaves it with two executors."""

    def __init__(self, there: Marathon, name: str, file: Path) -> None:
        self.there, self.name, self.file = there, name, file
        self.app = f"/{name}-cpu"

    def well(self, *argv: str | Path) -> str:
        return well("--name", self.name, *argv)

    def executors(self) -> set[str]:
        """The nodes that the collector knows."""
        return set(self.well("exec", "master", "--", "condor_status", "-af", "Machine").split())

    def container(self, node: str) -> str:
        """The container of a node."""
        for app in self.there.emulator.listed():
            for container in self.there.nodes(app["id"]):
                if node in (container.hostname, app["id"].strip("/")):
                    return container.name
        raise AssertionError(f"no node {node}")


@pytest.fixture(scope="module")
def pool(image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pool]:
    directory = tmp_path_factory.mktemp("marathon")
    name = fresh("mara")
    with at_home(directory / "state"), marathon() as there:
        text = POOL.format(image=image, network=there.network)
        found = Pool(there, name, write(directory / "pool.yaml", text))
        on = ("--name", name, "--engine", "marathon", "--url", there.url)
        done = roost("up", found.file, *on, timeout=480)
        assert done.stdout == f"The pool {name} is up: 2 executors, on marathon.\n", done.stderr
        yield found
        # What the last test has not taken down goes with the emulator.


def test_up_again_changes_nothing(pool: Pool) -> None:
    before = pool.there.emulator.containers()
    asked = len(pool.there.server.asked)
    pool.well("up", pool.file, "--engine", "marathon", "--url", pool.there.url)
    assert pool.there.emulator.containers() == before
    assert [line for line in pool.there.server.asked[asked:] if not line.startswith("GET ")] == []


def test_status_ls_and_logs_show_it(pool: Pool) -> None:
    status = json.loads(pool.well("status", "--json"))
    executors = pool.executors()
    names = {f"{pool.name}-master", f"{pool.name}-submit", *executors}
    assert {node["name"] for node in status["nodes"]} == names
    assert {node["state"] for node in status["nodes"]} == {"running"}
    # On a busy machine a check may take too long; nobody is killed for it, and the next is soon.
    eventually(
        lambda: all(each["tasksUnhealthy"] == 0 for each in pool.there.emulator.listed()), 120
    )
    assert {slot["node"] for slot in status["slots"]} == executors
    listed = roost("ls", "--engine", "marathon", "--json", env={"MARATHON_URL": pool.there.url})
    (row,) = json.loads(listed.stdout)
    assert (row["name"], row["nodes"], row["running"]) == (pool.name, 4, 4)
    assert "admitted to pool" in pool.well("logs", "submit")
    # Each on an agent of its own, and nothing but these was admitted.
    tasks = httpx.get(f"{pool.there.url}/v2/apps/{pool.app}").json()["app"]["tasks"]
    assert len({task["host"] for task in tasks}) == 2
    assert json.loads(pool.well("approve", "--list", "--json")) == []
    found = json.loads(pool.well("doctor", "--json"))
    assert [row for row in found if row["severity"] == "error"] == []


def test_the_demos_job_passes(pool: Pool, tmp_path: Path) -> None:
    shutil.copytree(Path(__file__).parent / "sleep", tmp_path, dirs_exist_ok=True)
    pool.well("submit", "--wait", tmp_path / "sleep.sub")
    first, *_, last = (tmp_path / "sleep.out").read_text().splitlines()
    assert first.split(" as ")[0].removeprefix("sleeping on ") in pool.executors()
    assert last == "done"
    assert (tmp_path / "sleep.err").read_text() == ""


def test_one_more_and_a_busy_one_drained(pool: Pool, tmp_path: Path) -> None:
    before = set(pool.there.tasks(pool.app))
    assert pool.well("scale", "3") == f"The pool {pool.name} has: cpu 3.\n"
    assert before < set(pool.there.tasks(pool.app))
    assert len(pool.executors()) == 3
    job = Gated(pool.name, tmp_path, "busy", container=pool.container)
    host = job.runs()
    busy = pool.there.emulator.containers()
    with running("drain", host, "--name", pool.name) as draining:
        draining.until(f"{job.id} of john")
        assert len(pool.there.tasks(pool.app)) == 3
        job.open()
        assert draining.end() == (0, f"Drained and removed: {host}.\n")
    job.ended_in_one_run()
    left = pool.there.emulator.containers()
    assert left.items() < busy.items()
    assert len(pool.there.tasks(pool.app)) == 2
    assert pool.executors() == {node.hostname for node in pool.there.nodes(pool.app)}


def test_what_was_killed_comes_back(pool: Pool) -> None:
    """The access point by itself, with its identity and its queue; an executor is a new node, which
    `roost up` admits."""
    (victim, other), (access,) = (
        pool.there.nodes(pool.app),
        pool.there.nodes(f"/{pool.name}-submit"),
    )
    gone, stays = victim.hostname, other.hostname
    tasks = set(pool.there.emulator.containers())
    history = pool.well("exec", "submit", "--", "condor_history", "-af", "ClusterId")
    for node in (victim, access):
        ask("kill", node.name)
    emulator = pool.there.emulator
    assert emulator.until(lambda it: len(set(it.containers()) - tasks) == 2, 60)
    pool.well("up")
    executors = pool.executors()
    assert len(pool.there.tasks(pool.app)) == 2
    assert stays in executors
    assert {node.hostname for node in pool.there.nodes(pool.app)} <= executors
    assert gone not in {node.hostname for node in pool.there.nodes(pool.app)}
    # The first job of `roost up` came to those that were there.
    after = pool.well("exec", "submit", "--", "condor_history", "-af", "ClusterId")
    assert after.endswith(f"\n{history}")


def test_what_somebody_else_changes_is_left_alone(pool: Pool) -> None:
    """An app of theirs whose name the pool needs; a deployment that is not roost's."""
    other = fresh("mara")
    nowhere = {
        "id": f"/{other}-master", "constraints": [["hostname", "LIKE", "nowhere"]],
        "container": {"type": "DOCKER", "docker": {"image": "i"}},
    }  # fmt: skip
    httpx.post(f"{pool.there.url}/v2/apps", json=nowhere).raise_for_status()
    on = ("--engine", "marathon", "--url", pool.there.url)
    said = refused(roost("up", pool.file, "--name", other, *on), 1)
    assert said.startswith(f"the app /{other}-master exists on Marathon and is not this pool's; ")
    httpx.delete(f"{pool.there.url}/v2/apps//{other}-master").raise_for_status()
    apps = {app["id"] for app in pool.there.emulator.listed()}
    assert apps == {f"/{pool.name}-{group}" for group in ("master", "submit", "cpu")}


def test_down_removes_all(pool: Pool) -> None:
    pool.well("down")
    emulator = pool.there.emulator
    assert (emulator.listed(), emulator.running(), emulator.containers()) == ([], [], {})
    assert eventually(lambda: not emulator.volumes(), 30) is True
    assert pool.well("down") == f"There is no pool {pool.name}.\n"
