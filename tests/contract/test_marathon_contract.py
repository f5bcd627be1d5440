"""What every engine keeps, as far as Marathon has it: on the emulator, with small containers.

It makes no networks, delivers no files and names executors itself: so this is a suite
of its own, with the same promises.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator

import pytest

from marathon_emulator.emulator import Emulator, emulated
from marathon_emulator.rest import serving
from roost import engines
from roost._run import run
from roost.engines.base import Event
from roost.engines.marathon.engine import MarathonEngine
from roost.errors import EngineError, NameTaken
from roost.plan import Item, Mount, Node, Observed, Ref, Volume
from roost.spec import Marathon, PoolSpec
from roost_node.vocab import LABEL_GROUP, LABEL_POOL, LABEL_ROLE, LABEL_SPEC, Role

pytest_plugins = ("contract_fixtures",)
pytestmark = pytest.mark.engine

POOL = "p"


class Bench:
    def __init__(self, engine: MarathonEngine, emulator: Emulator, image: str, network: str):
        self.engine, self.emulator, self.image, self.network = engine, emulator, image, network

    def node(self, role: Role = "execute", name: str = "p-cpu-1", *, pool: str = POOL) -> Node:
        group = "cpu" if role == "execute" else role
        labels = {LABEL_POOL: pool, LABEL_ROLE: role, LABEL_GROUP: group, LABEL_SPEC: "0123"}
        mounts = (Mount(f"{pool}-spool", "/var/spool/condor"),) if role == "submit" else ()
        return Node(
            name, role, group, self.image, ("-e", "somebody"), self.network, labels,
            memory=64 * 2**20, mounts=mounts,
        )  # fmt: skip

    def make(self, *items: Item) -> list[Event]:
        return [event for item in items for event in self.engine.ensure(item)]

    def executor(self) -> Ref:
        """One more; what it is called."""
        return next(event.ref for event in self.make(self.node()) if event.kind == "created")


@pytest.fixture(scope="module")
def network() -> Iterator[str]:
    name = f"engines-{uuid.uuid4().hex[:8]}"
    run(["docker", "network", "create", name]).check()
    yield name
    run(["docker", "network", "rm", name]).check()


@pytest.fixture
def bench(docker_image: str, network: str) -> Iterator[Bench]:
    with emulated("1.5", pace=0.02) as emulator, serving(emulator) as server:
        engine = engines.by_name(
            "marathon",
            PoolSpec(marathon=Marathon(url=server.url, agents=("unix:///var/run/docker.sock",))),
        )
        assert isinstance(engine, MarathonEngine)
        yield Bench(engine, emulator, docker_image, network)


def kinds(events: list[Event]) -> list[str]:
    return [event.kind for event in events]


def test_a_node_is_made_observed_left_alone_and_removed(bench: Bench) -> None:
    engine, node = bench.engine, bench.node("submit", "p-submit")
    assert engine.observe(POOL) == Observed(POOL)
    assert kinds(bench.make(Volume("p-spool", node.labels), node)) == [
        "unchanged", "creating", "created", "created", "started",
    ]  # fmt: skip
    observed = engine.observe(POOL)
    (seen,) = observed.nodes
    assert (observed.networks, observed.volumes) == ((), ("p-spool",))
    assert (seen.name, seen.role, seen.group, seen.spec) == ("p-submit", "submit", "submit", "0123")
    assert (seen.image, seen.state, seen.health) == (bench.image, "running", "healthy")
    assert seen.networks == (bench.network,)
    assert seen.started
    assert engine.endpoint(seen.ref, 9618) == f"{seen.address}:9618"
    assert engine.pools() == [POOL]
    assert kinds(bench.make(node)) == ["unchanged"]
    assert engine.observe(POOL) == observed
    # It goes and its volume stays; it comes back on it; both go.
    engine.exec(seen.ref, ["touch", "/var/spool/condor/job"]).check()
    assert kinds(list(engine.retire([seen.ref]))) == ["removing", "removed"]
    assert engine.observe(POOL) == Observed(POOL, volumes=("p-spool",))
    assert kinds(bench.make(node)) == ["creating", "created", "started"]
    engine.exec(seen.ref, ["test", "-e", "/var/spool/condor/job"]).check()
    both = [Ref("volume", "p-spool"), seen.ref]
    assert kinds(list(engine.retire(both))) == ["removing", "removed"] * 2
    assert (engine.observe(POOL), bench.emulator.listed()) == (Observed(POOL), [])
    assert list(engine.retire(both)) == []


def test_exactly_the_named_executors_go(bench: Bench) -> None:
    first, second = bench.executor(), bench.executor()
    assert first != second
    before = bench.emulator.containers()
    assert {node.name for node in bench.engine.observe(POOL).nodes} == {first.name, second.name}
    assert kinds(bench.make(bench.node(name=second.name))) == ["unchanged"]
    assert kinds(list(bench.engine.retire([first]))) == ["removing", "removed"]
    assert bench.emulator.containers().items() < before.items()
    assert [node.name for node in bench.engine.observe(POOL).nodes] == [second.name]
    (app,) = bench.emulator.listed()
    assert app["instances"] == 1
    assert list(bench.engine.retire([first])) == []
    list(bench.engine.retire([second]))
    assert bench.emulator.listed() == []


def test_an_ensure_that_is_given_up_leaves_nothing(bench: Bench) -> None:
    stays = bench.executor()
    events = bench.engine.ensure(bench.node())
    assert [next(events).kind, next(events).kind] == ["creating", "created"]
    assert len(bench.engine.observe(POOL).nodes) == 2
    del events
    assert bench.emulator.until(lambda it: len(it.containers()) == 1, 30)
    assert [node.name for node in bench.engine.observe(POOL).nodes] == [stays.name]


def test_a_name_of_another_pool_is_taken(bench: Bench) -> None:
    bench.make(bench.node("submit", "p-submit"))
    theirs = bench.node("submit", "p-submit", pool="other")
    with pytest.raises(NameTaken, match="/p-submit"):
        bench.make(theirs)
    assert not bench.engine.observe("other")


def test_an_image_that_is_not_there_is_said_and_leaves_nothing(bench: Bench) -> None:
    missing = bench.node()
    missing = Node(**{**vars(missing), "image": "localhost/roost-nobody/has-this:1"})
    with pytest.raises(EngineError, match=r"a task of /p-cpu ended: .*roost-nobody"):
        bench.make(missing)
    assert bench.emulator.until(lambda it: not it.listed(), 30)


def test_exec_and_logs_go_through_the_agents_docker(bench: Bench) -> None:
    ref = bench.executor()
    script = ["sh", "-c", "id -un; cat; echo wrong >&2; exit 4"]
    done = bench.engine.exec(ref, script, user="john", stdin=b"line\0\xff")
    assert (done.status, done.stdout) == (4, b"john\nline\0\xff")
    assert "wrong" in done.stderr
    assert bench.engine.exec(ref, ["sleep", "30"], timeout=0.5).status == 124
    assert bench.engine.exec(ref, ["hostname"]).text.strip() == ref.name
    assert "args: -e somebody" in next(iter(bench.engine.logs(ref)))
    argv = bench.engine.interactive(ref, ["sh", "-l"], user="john")
    assert argv[:3] == ["docker", "--host=unix:///var/run/docker.sock", "exec"]
    assert argv[-2:] == ["sh", "-l"]


def test_nodes_that_are_not_there_are_named(bench: Bench) -> None:
    ref = Ref("node", "p-nobody")
    attempts: list[Callable[[], object]] = [
        lambda: bench.engine.exec(ref, ["true"]),
        lambda: list(bench.engine.logs(ref)),
        lambda: bench.engine.interactive(ref, ["sh"]),
    ]
    for attempt in attempts:
        with pytest.raises(EngineError, match="no node p-nobody"):
            attempt()
    with pytest.raises(EngineError, match="p-nobody has no address"):
        bench.engine.endpoint(ref, 9618)


def test_a_task_that_died_is_another_node(bench: Bench) -> None:
    ref = bench.executor()
    (container,) = bench.emulator.containers().values()
    run(["docker", "kill", container]).check()
    assert bench.emulator.until(
        lambda it: all(each["tasksHealthy"] for each in it.listed())
        and container not in it.containers().values() and bool(it.containers()), 60
    )  # fmt: skip
    (seen,) = bench.engine.observe(POOL).nodes
    assert seen.name != ref.name
    assert seen.state == "running"
