"""What every engine keeps: the fake first, then Docker, Podman and Kubernetes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

import pytest
from contract_bench import Bench

from roost._run import run
from roost.confine import Confinement
from roost.engines.base import Engine
from roost.errors import EngineError, ImageMissing, NameTaken
from roost.plan import Item, Mount, Network, Node, Observed, ObservedNode, Ref, Volume
from roost.security import Secret
from roost_node.vocab import (
    LABEL_GROUP,
    LABEL_POOL,
    LABEL_ROLE,
    LABEL_SPEC,
    STATE_DIR,
    Role,
)

#: Not a conftest.py: for mypy there may be one module of that name, and tests/pool has it.
pytest_plugins = ("contract_fixtures",)


def owned(pool: str) -> dict[str, str]:
    return {LABEL_POOL: pool}


def a_node(
    bench: Bench,
    pool: str,
    name: str = "execute-1",
    *,
    role: Role = "execute",
    args: tuple[str, ...] = ("-e", "somebody"),
    mounts: tuple[Mount, ...] = (),
    files: Mapping[str, Secret] | None = None,
    confinement: Confinement | None = None,
) -> Node:
    labels = owned(pool) | {LABEL_ROLE: role, LABEL_GROUP: "cpu", LABEL_SPEC: "0123"}
    return Node(
        f"{pool}-{name}", role, "cpu", bench.image, args, pool, labels,
        mounts=mounts, files=files or {}, confinement=confinement or Confinement(),
    )  # fmt: skip


def make(engine: Engine, *items: Item) -> list[str]:
    """What happened; that an engine waits for something is said at some times and not at others."""
    events = [event.kind for item in items for event in engine.ensure(item)]
    return [kind for kind in events if kind != "waiting"]


def start(bench: Bench, pool: str, *nodes: Node) -> ObservedNode:
    """The pool's network and nodes; the last of these as observed."""
    make(bench.engine, Network(pool, owned(pool)), *(nodes or (a_node(bench, pool),)))
    return bench.engine.observe(pool).nodes[-1]


def retire(engine: Engine, *refs: Ref) -> list[str]:
    return [event.kind for event in engine.retire(refs)]


def until(engine: Engine, pool: str, right: Callable[[Observed], bool]) -> Observed:
    """What is observed once it is right; fails after 30 s."""
    deadline = time.monotonic() + 30
    while not right(observed := engine.observe(pool)):
        assert time.monotonic() < deadline, observed
        time.sleep(0.1)
    return observed


# --- every engine --------------------------------------------------------------------------------


def test_an_unknown_pool_is_empty(bench: Bench, pool: str) -> None:
    assert bench.engine.observe(pool) == Observed(pool)
    assert pool not in bench.engine.pools()


def test_info_tells_what_the_machine_has(bench: Bench) -> None:
    info = bench.engine.info()
    assert info.name == bench.engine.name
    assert info.version
    assert info.cpus >= 1
    assert info.memory > 2**28
    assert info.cgroup in ("1", "2") or bench.is_kubernetes


def test_what_is_made_is_observed_by_its_labels(bench: Bench, pool: str) -> None:
    volume = Volume(f"{pool}-spool", owned(pool))
    node = a_node(bench, pool, mounts=(Mount(volume.name, "/var/spool/condor"),))
    assert make(bench.engine, Network(pool, owned(pool)), volume, node) == [
        "creating", "created", "creating", "created", "creating", "created", "started",
    ]  # fmt: skip
    observed = bench.engine.observe(pool)
    assert (observed.networks, observed.volumes) == ((pool,), (volume.name,))
    (seen,) = observed.nodes
    assert (seen.name, seen.role, seen.group, seen.spec) == (node.name, "execute", "cpu", "0123")
    assert (seen.image, seen.state, seen.exit_code) == (bench.image, "running", None)
    assert seen.address.count(".") == 3
    assert seen.started
    assert pool in bench.engine.pools()
    assert bench.engine.endpoint(seen.ref, 9618) == f"{seen.address}:9618"


def test_ensure_twice_changes_nothing(bench: Bench, pool: str) -> None:
    items = (
        Network(pool, owned(pool)), Volume(f"{pool}-spool", owned(pool)), a_node(bench, pool),
    )  # fmt: skip
    make(bench.engine, *items)
    before = bench.engine.observe(pool)
    assert make(bench.engine, *items) == ["unchanged"] * 3
    after = bench.engine.observe(pool)
    assert [node.started for node in after.nodes] == [node.started for node in before.nodes]


def test_a_stopped_node_is_started_again(bench: Bench, pool: str) -> None:
    node = a_node(bench, pool)
    start(bench, pool, node)
    bench.stop(node.name)
    (seen,) = bench.engine.observe(pool).nodes
    # Of a pod that is gone nobody knows how it ended.
    ended = None if bench.is_kubernetes else 0
    assert (seen.state, seen.exit_code, seen.address) == ("exited", ended, "")
    with pytest.raises(EngineError):
        bench.engine.exec(seen.ref, ["true"])
    with pytest.raises(EngineError, match="no address"):
        bench.engine.endpoint(seen.ref, 9618)
    assert make(bench.engine, node) == ["started"]
    assert bench.engine.observe(pool).nodes[0].state == "running"


def _paused(bench: Bench, node: str) -> None:
    if bench.pause is None:
        pytest.skip("Kubernetes pauses nothing")
    bench.pause(node)


def test_a_paused_node_goes_on(bench: Bench, pool: str) -> None:
    node = a_node(bench, pool)
    before = start(bench, pool, node)
    _paused(bench, node.name)
    (seen,) = bench.engine.observe(pool).nodes
    assert (seen.state, seen.health, seen.exit_code) == ("paused", "none", None)
    with pytest.raises(EngineError, match=r"paused|not running"):
        bench.engine.exec(seen.ref, ["true"])
    assert make(bench.engine, node) == ["started"]
    (seen,) = bench.engine.observe(pool).nodes
    assert (seen.state, seen.started) == ("running", before.started)
    assert bench.engine.exec(seen.ref, ["true"]).status == 0


def test_a_paused_node_is_removed(bench: Bench, pool: str) -> None:
    seen = start(bench, pool)
    _paused(bench, seen.name)
    assert retire(bench.engine, seen.ref) == ["removing", "removed"]
    assert bench.engine.observe(pool).nodes == ()


@pytest.mark.parametrize("stopped", [False, True])
def test_a_node_off_its_network_is_put_on_it_again(bench: Bench, pool: str, stopped: bool) -> None:
    node = a_node(bench, pool)
    before = start(bench, pool, node)
    assert pool in before.networks
    if bench.cut is None:
        pytest.skip("a pod is on its network as long as it lives")
    bench.cut(node.name)
    if stopped:
        bench.stop(node.name)
    (seen,) = bench.engine.observe(pool).nodes
    assert (seen.networks, seen.address) == ((), "")
    assert make(bench.engine, node) == ["started"]
    (seen,) = bench.engine.observe(pool).nodes
    assert seen.state == "running"
    assert stopped or seen.started == before.started
    assert seen.networks == before.networks
    assert seen.address.count(".") == 3
    assert make(bench.engine, node) == ["unchanged"]


def test_retire_removes_exactly_these_in_any_order(bench: Bench, pool: str) -> None:
    volume = Volume(f"{pool}-spool", owned(pool))
    goes = a_node(bench, pool, mounts=(Mount(volume.name, "/var/spool/condor"),))
    stays = a_node(bench, pool, "execute-2")
    make(bench.engine, volume)
    start(bench, pool, goes, stays)
    refs = [Ref("volume", volume.name), Ref("node", goes.name)]
    assert sorted(retire(bench.engine, *refs)) == ["removed", "removed", "removing", "removing"]
    observed = bench.engine.observe(pool)
    assert [node.name for node in observed.nodes] == [stays.name]
    assert (observed.networks, observed.volumes) == ((pool,), ())
    assert retire(bench.engine, *refs) == []


def test_a_node_goes_and_its_volume_stays(bench: Bench, pool: str) -> None:
    volume = Volume(f"{pool}-spool", owned(pool))
    node = a_node(bench, pool, mounts=(Mount(volume.name, "/var/spool/condor"),))
    make(bench.engine, volume)
    start(bench, pool, node)
    retire(bench.engine, Ref("node", node.name))
    assert bench.engine.observe(pool).volumes == (volume.name,)


@pytest.mark.parametrize("kind", ["network", "volume", "node"])
def test_a_name_of_another_pool_is_taken(
    bench: Bench, new_pool: Callable[[], str], kind: str
) -> None:
    mine, theirs = new_pool(), new_pool()
    items: dict[str, Item] = {
        "network": Network(theirs, owned(theirs)),
        "volume": Volume(f"{theirs}-spool", owned(theirs)),
        "node": a_node(bench, theirs),
    }
    make(bench.engine, *items.values())
    before = bench.engine.observe(theirs)
    with pytest.raises(NameTaken, match=theirs):
        make(bench.engine, replace(items[kind], labels=owned(mine)))
    assert bench.engine.observe(theirs).nodes[0].started == before.nodes[0].started
    assert not bench.engine.observe(mine)


def test_two_pools_do_not_see_each_other(bench: Bench, new_pool: Callable[[], str]) -> None:
    one, other = new_pool(), new_pool()
    start(bench, one)
    start(bench, other)
    assert {one, other} <= set(bench.engine.pools())
    for pool in (one, other):
        observed = bench.engine.observe(pool)
        assert observed.networks == (pool,)
        assert [node.name for node in observed.nodes] == [f"{pool}-execute-1"]


def test_a_missing_image_is_said_and_leaves_nothing(bench: Bench, pool: str) -> None:
    make(bench.engine, Network(pool, owned(pool)))
    missing = replace(a_node(bench, pool), image="localhost/roost-nobody/has-this:1")
    # In a cluster only the machine that is to run it finds out.
    assert bench.engine.has_image(missing.image) == bench.is_kubernetes
    assert bench.engine.has_image(bench.image)
    with pytest.raises(ImageMissing):
        make(bench.engine, missing)
    assert bench.engine.observe(pool).nodes == ()


def test_an_ensure_that_is_given_up_leaves_nothing(bench: Bench, pool: str) -> None:
    make(bench.engine, Network(pool, owned(pool)))
    events = bench.engine.ensure(a_node(bench, pool))
    assert [next(events).kind, next(events).kind] == ["creating", "created"]
    assert len(bench.engine.observe(pool).nodes) == 1
    del events
    assert bench.engine.observe(pool).nodes == ()


def test_nodes_that_are_not_there_are_named(bench: Bench, pool: str) -> None:
    ref = Ref("node", f"{pool}-nobody")
    attempts: list[Callable[[], object]] = [
        lambda: bench.engine.exec(ref, ["true"]),
        lambda: list(bench.engine.logs(ref)),
        lambda: bench.engine.endpoint(ref, 9618),
    ]
    for attempt in attempts:
        with pytest.raises(EngineError, match=f"no node {ref.name}"):
            attempt()


def test_interactive_is_the_engines_own_command(bench: Bench, pool: str) -> None:
    argv = bench.engine.interactive(Ref("node", "n"), ["sh", "-l"], user="john")
    assert argv[-2:] == ["sh", "-l"]
    if bench.is_kubernetes:  # kubectl knows no users: the change is made in the container
        assert argv[0] == "kubectl"
        assert "n-0" in argv
        assert argv[argv.index("--reuid") + 1] == "john"
        return
    assert argv[0] == bench.engine.name
    assert argv[-3:] == ["n", "sh", "-l"]
    assert argv[argv.index("--user") + 1] == "john"
    piped = bench.engine.interactive(Ref("node", "n"), ["sh", "-l"], user="john", terminal=False)
    assert piped == [word for word in argv if word != "--tty"]
    assert len(piped) == len(argv) - 1


# --- those that run containers -------------------------------------------------------------------


def test_files_are_there_before_the_start_and_shown_nowhere(real: Bench, pool: str) -> None:
    names = {"node.key": "600", "node.crt": "644", "reader.key": "644", "extra.conf": "600"}
    files = {name: Secret(f"hidden-{name}".encode()) for name in names}
    volume = Volume(f"{pool}-state", owned(pool))
    make(real.engine, volume)
    bare = a_node(real, pool, files=files)
    mounted = a_node(real, pool, "master", mounts=(Mount(volume.name, STATE_DIR),), files=files)
    start(real, pool, bare, mounted)
    for node in (bare, mounted):
        ref = Ref("node", node.name)
        said = "\n".join(real.engine.logs(ref))
        for name, mode in names.items():
            assert f"file: {STATE_DIR}/{name} {mode} 0:0" in said
        done = real.engine.exec(ref, ["cat", f"{STATE_DIR}/node.key"])
        assert done.text == "hidden-node.key"
        assert "hidden" not in real.shown(node.name)


def test_a_node_gets_its_name_arguments_and_limits(oci: Bench, pool: str) -> None:
    node = replace(a_node(oci, pool), cpus=0.5, memory=256 * 2**20)
    seen = start(oci, pool, node)
    assert "args: -e somebody" in list(oci.engine.logs(seen.ref))
    assert oci.engine.exec(seen.ref, ["hostname"]).text.strip() == node.name
    limits = run(
        [oci.engine.name, "inspect", node.name, "--format",
         "{{.HostConfig.Memory}} {{.HostConfig.NanoCpus}} {{.HostConfig.RestartPolicy.Name}}"]
    ).check()  # fmt: skip
    assert limits.text.split() == [str(256 * 2**20), "500000000", "unless-stopped"]


def test_a_node_may_do_only_what_it_was_given(real: Bench, pool: str) -> None:
    to = Confinement(
        capabilities=("CHOWN",), read_only=True, tmpfs=("/run",), volumes=(STATE_DIR,), pids=100
    )
    node = a_node(real, pool, confinement=to, files={"node.key": Secret(b"hidden")})
    ref = start(real, pool, node).ref
    status = dict(
        line.split(":", 1)
        for line in real.engine.exec(ref, ["cat", "/proc/1/status"]).text.splitlines()
    )
    assert (int(status["CapEff"], 16), int(status["CapBnd"], 16)) == (1, 1)
    assert status["NoNewPrivs"].strip() == "1"
    assert status["Seccomp"].strip() == "2"
    # The files came although the root cannot be written.
    assert real.engine.exec(ref, ["cat", f"{STATE_DIR}/node.key"]).text == "hidden"
    for path, status_of_touch in (("/usr/x", 1), ("/run/x", 0), (f"{STATE_DIR}/x", 0)):
        assert real.engine.exec(ref, ["touch", path]).status == status_of_touch
    if real.is_kubernetes:  # a pod has no limit of processes: that is the kubelet's
        assert "privileged: true" not in real.shown(node.name)
        return
    template = "{{.HostConfig.PidsLimit}} {{.HostConfig.Privileged}}"
    shown = run([real.engine.name, "inspect", node.name, "--format", template]).check().text
    assert shown.split() == ["100", "false"]


def test_a_node_without_root_owns_its_files_and_places(real: Bench, pool: str) -> None:
    to = Confinement(user="1000:1000", read_only=True, tmpfs=("/run",), volumes=(STATE_DIR,))
    node = a_node(real, pool, confinement=to, files={"node.key": Secret(b"hidden")})
    ref = start(real, pool, node).ref
    assert f"file: {STATE_DIR}/node.key 600 1000:1000" in list(real.engine.logs(ref))
    done = real.engine.exec(ref, ["stat", "--format", "%u:%g %a", "/run"])
    assert done.text.strip() == "1000:1000 755"
    assert real.engine.exec(ref, ["touch", "/run/x"]).status == 0


def test_more_cpus_than_the_machine_has_are_no_limit(oci: Bench, pool: str) -> None:
    node = replace(a_node(oci, pool), cpus=oci.engine.info().cpus + 6)
    assert start(oci, pool, node).state == "running"


def test_exec_gives_status_output_stdin_and_user(real: Bench, pool: str) -> None:
    # Where the engine itself changes nobody's account, the container must be able to.
    node = a_node(real, pool, confinement=Confinement(capabilities=("SETGID", "SETUID")))
    ref = start(real, pool, node).ref
    script = ["sh", "-c", "id -un; cat; echo wrong >&2; exit 4"]
    done = real.engine.exec(ref, script, user="john", stdin=b"line\0\xff")
    assert (done.status, done.stdout) == (4, b"john\nline\0\xff")
    assert "wrong" in done.stderr
    assert real.engine.exec(ref, ["cat"]).stdout == b""
    assert real.engine.exec(ref, ["no-such-program"]).status in (126, 127)
    assert real.engine.exec(ref, ["sleep", "30"], timeout=0.5).status == 124


def test_logs_follow_and_tail(real: Bench, pool: str) -> None:
    ref = start(real, pool).ref
    real.engine.exec(ref, ["sh", "-c", "echo later > /proc/1/fd/1"])
    lines: Iterator[str] = real.engine.logs(ref, follow=True)
    assert next(line for line in lines if line == "later")
    del lines  # stops the command that follows
    assert list(real.engine.logs(ref, tail=1)) == ["later"]


def test_nodes_find_each_other_by_name(real: Bench, pool: str) -> None:
    master = a_node(real, pool, "master", role="master")
    start(real, pool, a_node(real, pool), master)
    seen = {node.name: node for node in real.engine.observe(pool).nodes}
    found = real.engine.exec(seen[f"{pool}-execute-1"].ref, ["getent", "hosts", master.name])
    assert found.text.split()[0] == seen[master.name].address


def test_a_node_that_fails_for_good_is_seen_to_have_failed(real: Bench, pool: str) -> None:
    start(real, pool, a_node(real, pool, args=("-m", "--fail")))
    observed = until(real.engine, pool, lambda seen: seen.nodes[0].restarts > 1)
    assert "cannot go on" in list(real.engine.logs(observed.nodes[0].ref))
    retire(real.engine, observed.nodes[0].ref)
    assert not real.engine.observe(pool).nodes


def test_health_is_the_images_own_check(oci: Bench, pool: str) -> None:
    seen = start(oci, pool)
    assert seen.health in ("starting", "unhealthy")
    until(oci.engine, pool, lambda observed: observed.nodes[0].health == "unhealthy")
    oci.engine.exec(seen.ref, ["touch", "/run/healthy"])
    until(oci.engine, pool, lambda observed: observed.nodes[0].health == "healthy")


def test_an_unknown_network_is_said_and_leaves_nothing(oci: Bench, pool: str) -> None:
    with pytest.raises(EngineError, match=f"no network {pool}.*network create"):
        make(oci.engine, a_node(oci, pool))
    assert not oci.engine.observe(pool)


def test_nameless_volumes_go_with_their_node(oci: Bench, pool: str) -> None:
    seen = start(oci, pool)
    template = "{{range .Mounts}}{{.Name}}{{end}}"
    name = run([oci.engine.name, "inspect", seen.name, "--format", template]).check().text.strip()
    assert name
    retire(oci.engine, seen.ref)
    assert run([oci.engine.name, "volume", "inspect", name]).status != 0


def test_what_is_no_pools_is_left_alone(oci: Bench, pool: str) -> None:
    name = f"{pool}-stranger"
    run([oci.engine.name, "create", "--name", name, oci.image]).check()
    try:
        with pytest.raises(NameTaken, match=name):
            make(oci.engine, a_node(oci, pool, "stranger"))
        with pytest.raises(NameTaken, match=name):
            retire(oci.engine, Ref("node", name))
        assert run([oci.engine.name, "inspect", name]).status == 0
    finally:
        run([oci.engine.name, "rm", "--volumes", name]).check()


def test_a_stopped_node_starts_on_a_network_that_was_made_anew(oci: Bench, pool: str) -> None:
    node = a_node(oci, pool)
    start(oci, pool, node)
    oci.stop(node.name)
    # Podman keeps a network that a container is on, also if that is stopped.
    removed = run([oci.engine.name, "network", "rm", pool]).status == 0
    assert removed == (oci.engine.name == "docker")
    if removed:
        with pytest.raises(EngineError, match="network"):
            make(oci.engine, node)
    assert make(oci.engine, Network(pool, owned(pool)), node)[-1] == "started"
    assert oci.engine.observe(pool).nodes[0].address.count(".") == 3
