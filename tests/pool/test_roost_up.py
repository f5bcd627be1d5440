"""`roost up`, `scale` and `down` on a real engine: what they make, change, and leave alone."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from node_bench import eventually
from roost_bench import (
    ROOST,
    Json,
    ask,
    at_home,
    fresh,
    held,
    ids,
    plain,
    refused,
    roost,
    taken_down,
    well,
    write,
)  # fmt: skip

from roost.spec import IMAGES

pytestmark = pytest.mark.engine

POOL = """\
name: {name}
submit: {{users: [{users}]}}
execute:
  - {{name: small, count: {small}, cpus: 0.5, memory: {memory}}}
  - {{name: large, count: {large}}}
config: |
  # {remark}
"""


@pytest.fixture(scope="module")
def home(image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with at_home(tmp_path_factory.mktemp("home")) as home:
        yield home


def pool_file(at: Path, name: str, **changes: object) -> Path:
    usual = {"users": "john", "small": 1, "large": 1, "memory": "256MiB", "remark": "none"}
    return write(at / "pool.yaml", POOL.format(name=name, **usual | changes))


def jobs(pool: str) -> list[Json]:
    found: list[Json] = json.loads(well("q", "--all", "--json", "--name", pool))
    return found


# --- one pool, changed -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pool(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A pool with two groups. The tests of this section run in their order: each changes it."""
    with taken_down(fresh("change")) as name:
        said = well("up", pool_file(tmp_path_factory.mktemp("pool"), name))
        assert said == f"The pool {name} is up: 2 executors, on docker.\n"
        yield name


def test_a_real_job_ran(pool: str) -> None:
    (first,) = jobs(pool)
    assert (first["state"], first["exit_code"]) == ("completed", 0)
    assert first["host"].split("@")[1].startswith(pool)


def test_again_is_a_no_op(pool: str, tmp_path: Path) -> None:
    before = ids(pool)
    assert len(before) == 4
    again = roost("up", pool_file(tmp_path, pool))
    assert again.returncode == 0
    assert again.stderr == ""
    assert again.stdout == f"The pool {pool} is up: 2 executors, on docker.\n"
    assert ids(pool) == before
    assert len(jobs(pool)) == 1
    # without the file it is as it was asked for last
    assert well("up", "--name", pool) == again.stdout
    assert ids(pool) == before


def test_executors_come_and_go(pool: str, tmp_path: Path) -> None:
    before = ids(pool)
    well("up", pool_file(tmp_path, pool, small=2))
    more = ids(pool)
    assert more.keys() - before.keys() == {f"{pool}-small-2"}
    assert before.items() <= more.items()
    well("up", pool_file(tmp_path, pool, small=2, large=0))
    assert ids(pool) == {name: id for name, id in more.items() if name != f"{pool}-large-1"}
    well("up", pool_file(tmp_path, pool))
    assert ids(pool).keys() == before.keys()
    unchanged = {f"{pool}-{node}" for node in ("master", "submit", "small-1")}
    assert {name: ids(pool)[name] for name in unchanged} == {
        name: before[name] for name in unchanged
    }


def test_a_group_that_changed_is_made_anew_and_nothing_else(pool: str, tmp_path: Path) -> None:
    before = ids(pool)
    well("up", pool_file(tmp_path, pool, memory="200MiB"))
    after = ids(pool)
    assert {name for name in after if after[name] != before.get(name)} == {f"{pool}-small-1"}
    status = json.loads(well("status", "--json", "--name", pool))
    memory = {slot["node"].split(".")[0]: slot["total_memory"] for slot in status["slots"]}
    assert memory[f"{pool}-small-1"] == 200


def test_a_user_is_added_and_the_queue_survives(pool: str, tmp_path: Path) -> None:
    write(
        tmp_path / "huge.sub", "executable = /bin/true\nrequest_cpus = 999\nlog = huge.log\nqueue\n"
    )
    cluster = json.loads(well("submit", tmp_path / "huge.sub", "--json", "--name", pool))["cluster"]
    before, earlier = ids(pool), {job["id"] for job in jobs(pool)}
    well("up", pool_file(tmp_path, pool, memory="200MiB", users="john, mary"))
    assert ids(pool) == before
    assert earlier <= {job["id"] for job in jobs(pool)}
    assert well("rm", str(cluster), "--name", pool) == f"Removed {cluster}.0.\n"
    write(tmp_path / "mary.sub", "executable = /bin/true\nqueue\n")
    assert "exit code 0" in well("submit", "--user", "mary", "--wait", tmp_path / "mary.sub",
                                 "--name", pool)  # fmt: skip


def test_configuration_reaches_every_node(pool: str, home: Path, tmp_path: Path) -> None:
    changed = pool_file(tmp_path, pool, memory="200MiB", users="john, mary")
    changed.write_text(changed.read_text() + "  ROOST_TEST_MARK = here\n")
    authority = (home / pool / "ca.key").read_bytes()
    earlier = {job["id"] for job in jobs(pool)}
    well("up", changed)
    for node in ids(pool):
        assert (
            well("exec", node, "--name", pool, "condor_config_val", "ROOST_TEST_MARK") == "here\n"
        )
    # what a pool must not lose
    assert (home / pool / "ca.key").read_bytes() == authority
    assert earlier <= {job["id"] for job in jobs(pool)}


def test_a_change_that_fails_is_undone(pool: str, image: str, tmp_path: Path) -> None:
    """The access point is made anew before it turns out that an executor's name is taken."""
    wanted = pool_file(tmp_path, pool, memory="200MiB", small=2, users="john, eve")
    wanted.write_text(wanted.read_text() + "  ROOST_TEST_MARK = here\n")
    before = ids(pool)
    theirs = f"{pool}-small-2"
    ask("create", "--name", theirs, image)
    try:
        sentence = refused(roost("up", wanted), 1)
        assert f"the container {theirs} exists in Docker and is not this pool's" in sentence
        after = ids(pool)
        assert after.keys() == before.keys()
        executors = {name for name in before if "-small-" in name or "-large-" in name}
        assert all(after[name] == before[name] for name in executors)
    finally:
        ask("rm", theirs)
    # what it was before, it is again: with the same users and configuration, and working
    assert "no users" in well("exec", "submit", "--name", pool, "--", "sh", "-c",
                              "id eve 2>&1 || echo no users")  # fmt: skip
    mark = ("exec", "submit", "--name", pool, "condor_config_val", "ROOST_TEST_MARK")
    eventually(lambda: roost(*mark).stdout == "here\n", 60)
    assert well("up", "--name", pool).endswith("2 executors, on docker.\n")


def test_idle_executors_go_first(pool: str, tmp_path: Path) -> None:
    assert well("scale", "small=2", "--name", pool) == f"The pool {pool} has: small 2, large 1.\n"
    four = ids(pool)
    assert len(four) == 5
    # a job on small-1, so that small-2 is the one that goes; and one on small-2, after which
    # small-1 goes although its number is lower
    write(tmp_path / "sleep.sub", f"""\
executable = /bin/sleep
transfer_executable = False
arguments = 100
requirements = Machine == "{pool}-small-2"
request_memory = 64
log = sleep.log
queue
""")  # fmt: skip
    cluster = json.loads(well("submit", tmp_path / "sleep.sub", "--json", "--name", pool))[
        "cluster"
    ]
    deadline = time.monotonic() + 60
    while [job["state"] for job in jobs(pool) if job["id"] == f"{cluster}.0"] != ["running"]:
        assert time.monotonic() < deadline, well("why", str(cluster), "--name", pool)
        time.sleep(0.25)
    well("scale", "small=1", "large=0", "--name", pool)
    stay = {f"{pool}-{node}" for node in ("master", "submit", "small-2")}
    assert ids(pool) == {name: id for name, id in four.items() if name in stay}
    (job,) = [job for job in jobs(pool) if job["id"] == f"{cluster}.0"]
    assert (job["state"], job["host"].split("@")[1]) == ("running", f"{pool}-small-2")
    # one that is busy waits for its job, unless it is forced to go
    began = time.monotonic()
    assert well("scale", "small=0", "--force", "--name", pool).endswith("has: small 0, large 0.\n")
    assert time.monotonic() - began < 90
    assert set(ids(pool)) == {f"{pool}-master", f"{pool}-submit"}
    assert "no executor in the pool" in well("why", str(cluster), "--name", pool)
    well("scale", "small=1", "large=1", "--name", pool)
    well("rm", str(cluster), "--name", pool)


def test_scale_refuses(pool: str) -> None:
    before = ids(pool)
    assert "has 2 groups" in refused(roost("scale", "3", "--name", pool))
    assert "no group 'gpu'" in refused(roost("scale", "gpu=3", "--name", pool))
    assert "not a number" in refused(roost("scale", "small=-1", "--name", pool))
    assert "not a number" in refused(roost("scale", "--name", pool, "--", "-1"))
    assert ids(pool) == before


def test_up_starts_again_what_stands_still(pool: str) -> None:
    before = ids(pool)
    ask("stop", f"{pool}-large-1")
    well("up", "--name", pool)
    assert ids(pool) == before
    status = json.loads(well("status", "--json", "--name", pool))
    assert {node["state"] for node in status["nodes"]} == {"running"}


# --- two pools ---------------------------------------------------------------------------------


def test_two_pools_do_not_see_each_other(home: Path, tmp_path: Path) -> None:
    with taken_down(fresh("one")) as one, taken_down(fresh("two")) as two:
        ups = [
            subprocess.Popen([ROOST, "up", "--name", name], stdout=subprocess.PIPE,
                             stderr=subprocess.PIPE, text=True)
            for name in (one, two)
        ]  # fmt: skip
        for up in ups:
            _, said = up.communicate(timeout=180)
            assert up.returncode == 0, said
        listed = {row["name"] for row in json.loads(well("ls", "--json"))}
        assert {one, two} <= listed
        assert [row["name"] for row in json.loads(well("ls", "--json", "--name", one))] == [one]
        for this, other in ((one, two), (two, one)):
            status = json.loads(well("status", "--json", "--name", this))
            assert {node["name"] for node in status["nodes"]} == {
                f"{this}-master", f"{this}-submit", f"{this}-execute-1"
            }  # fmt: skip
            assert {slot["node"].split(".")[0] for slot in status["slots"]} == {f"{this}-execute-1"}
            assert len(jobs(this)) == 1
            refused(roost("exec", f"{other}-submit", "--name", this, "true"))
        write(tmp_path / "a.sub", "executable = /bin/true\nqueue\n")
        well("submit", "--wait", tmp_path / "a.sub", "--name", one)
        assert (len(jobs(one)), len(jobs(two))) == (2, 1)
        # Even a node that is put on the other's network is nobody there: its CA is another's.
        ask("network", "connect", two, f"{one}-submit")
        for tool in ("condor_status", "condor_q -name"):
            target = f"{two}-master" if tool == "condor_status" else f"{two}-submit"
            command = f"{tool} {target} -pool {two}-master" if "condor_q" in tool else (
                f"{tool} -pool {target}")  # fmt: skip
            stranger = roost("exec", "submit", "--name", one, "--", "sh", "-c", command)
            assert stranger.returncode != 0
            assert f"{two}-execute-1" not in stranger.stdout
        within = roost("exec", "submit", "--name", two, "--",
                       "condor_status", "-pool", f"{two}-master", "-af", "Machine")  # fmt: skip
        assert within.stdout == f"{two}-execute-1\n"
        ask("network", "disconnect", two, f"{one}-submit")
        # Taking one down is nothing to the other.
        before = ids(one)
        well("down", "--name", two)
        assert ids(one) == before
        assert held(two) == set()


# --- when it fails -----------------------------------------------------------------------------


@pytest.fixture
def gone(home: Path) -> Iterator[str]:
    """A pool's name of which nothing may be left, whatever the test does."""
    with taken_down(fresh("fail")) as name:
        yield name
        assert held(name) == set()
        assert not (home / name).exists()


def test_an_image_that_is_missing(gone: str, tmp_path: Path) -> None:
    sentence = refused(roost("up", "--name", gone, "--release", "lts"), 1)
    assert sentence == (
        f"the image {IMAGES}:lts is not here; `roost image build --release lts` builds it"
    )
    file = write(tmp_path / "pool.yaml", f"name: {gone}\nhtcondor: {{image: no/such:1}}\n")
    sentence = refused(roost("up", file), 1)
    assert sentence.startswith("the image no/such:1 is not here; ")
    assert "docker pull no/such:1" in sentence


def test_an_image_that_is_not_roosts(gone: str, tmp_path: Path) -> None:
    file = write(
        tmp_path / "pool.yaml", f"name: {gone}\nhtcondor: {{image: 'debian:trixie-slim'}}\n"
    )
    assert "roost" in refused(roost("up", file), 1)
    assert "not one of roost's" in refused(roost("up", file), 1)


def test_configuration_that_breaks_a_node(gone: str, tmp_path: Path) -> None:
    file = write(tmp_path / "pool.yaml", f"name: {gone}\nconfig: |\n  this is no configuration\n")
    done = roost("up", file)
    assert done.returncode == 1
    # Every node ends. Which is seen first, and whether the engine has started it again by then, is
    # chance.
    assert re.search(rf"^roost: {gone}-\S+ ended( with status 2)?; its log says:\n", done.stderr,
                     re.MULTILINE)  # fmt: skip
    quoted = done.stderr.partition("its log says:\n")[2]
    assert "HTCondor cannot read the extra configuration" in quoted
    assert "Line 1" in quoted
    assert plain(done.stderr)


@pytest.mark.parametrize(
    "make, remove, suffix",
    [
        (("create", "--name"), ("rm",), "-master"),
        (("create", "--name"), ("rm",), "-execute-1"),
        (("network", "create"), ("network", "rm"), ""),
        (("volume", "create"), ("volume", "rm"), "-spool"),
    ],
    ids=["master's name", "executor's name", "network's name", "volume's name"],
)
def test_a_name_that_is_taken(
    gone: str, image: str, make: tuple[str, ...], remove: tuple[str, ...], suffix: str
) -> None:
    theirs = f"{gone}{suffix}"
    ask(*make, theirs, *([image] if make[0] == "create" else []))
    try:
        sentence = refused(roost("up", "--name", gone), 1)
        assert f"{theirs} exists in Docker and is not this pool's; remove or rename it" in sentence
        assert held(gone) == {theirs}
        assert roost("down", "--name", gone).returncode == 0
        assert held(gone) == {theirs}
    finally:
        ask(*remove, theirs)


def test_a_network_that_is_not_there(gone: str) -> None:
    sentence = refused(roost("up", "--name", gone, "--network", "no-such-net"), 1)
    assert "knows no network no-such-net; make it with `docker network create" in sentence


def test_a_network_of_the_users_own(home: Path) -> None:
    network = fresh("theirs")
    ask("network", "create", network)
    try:
        with taken_down(fresh("own")) as name:
            well("up", "--name", name, "--network", network)
            assert set(json.loads(ask("network", "inspect", network))[0]["Containers"]) == set(
                ids(name).values()
            )
        assert ask("network", "ls", "-q", "--filter", f"name={network}")
    finally:
        ask("network", "rm", network)


@pytest.mark.parametrize(
    "at", ["making 1 network", "-master created", "waiting until", "a first job"]
)
def test_an_interrupt_leaves_nothing(gone: str, at: str) -> None:
    _interrupted(gone, at, signal.SIGINT)


def test_a_termination_leaves_nothing(gone: str) -> None:
    _interrupted(gone, "waiting until", signal.SIGTERM)


def _interrupted(name: str, at: str, by: signal.Signals) -> None:
    """As a terminal does it: the whole group gets the signal, the engine's client too."""
    with subprocess.Popen(
        [ROOST, "up", "--name", name], start_new_session=True, text=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    ) as up:  # fmt: skip
        assert up.stderr is not None
        said = []
        for line in up.stderr:
            said.append(line)
            if at in line:
                os.killpg(up.pid, by)
                at = "already sent"
        status = up.wait(timeout=120)
    assert at == "already sent", said
    assert status == (130 if by == signal.SIGINT else 143), said
    assert said[-1].startswith("roost: "), said
    assert not any("Traceback" in line for line in said)
    assert held(name) == set()


# --- secrets -----------------------------------------------------------------------------------


def test_secrets_stay_where_they_belong(home: Path, tmp_path: Path) -> None:
    with taken_down(fresh("secret")) as name:
        watched = Watched()
        with watched:
            said = [roost("up", "--name", name)]
            write(tmp_path / "a.sub", "executable = /bin/true\nlog = a.log\nqueue\n")
            said.append(roost("submit", "--wait", tmp_path / "a.sub", "--json", "--name", name))
        assert [done.returncode for done in said] == [0, 0], said
        well("env", "--name", name)
        directory = home / name
        assert directory.stat().st_mode & 0o777 == 0o700
        keys = [path.read_text() for path in directory.rglob("*.key")]
        assert len(keys) == 2  # the CA's and the user's
        nodes = ids(name)
        keys += [ask("exec", node, "cat", "/var/lib/roost/node.key") for node in nodes]
        secret = {line for key in keys for line in key.splitlines() if not line.startswith("-")}
        assert len(keys) == 5
        assert all(len(line) > 20 for line in secret)
        inside = "".join(
            ask("exec", node, "sh", "-c", "cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ; true")
            for node in nodes
        )
        shown = "".join(
            well(*command, "--name", name)
            for command in (["ls", "--json"], ["status", "--json"], ["q", "--all", "--json"],
                            ["doctor", "--json"], ["env", "--json"], ["render", "compose"],
                            ["logs"])
        )  # fmt: skip
        told = "".join(done.stdout + done.stderr for done in said)
        described = ask("inspect", *nodes.values())
        history = ask("history", "--no-trunc", f"{IMAGES}:trixie")
        for where in (watched.text, inside, shown, told, described):
            assert name in where  # it is what it should be
        for where in (watched.text, inside, shown, told, described, history):
            assert "PRIVATE KEY" not in where
            assert not [line for line in secret if line in where]
        well("down", "--name", name)
        assert not directory.exists()
        assert held(name) == set()


class Watched:
    """Every argv and environment of this machine's processes while the body runs."""

    def __init__(self) -> None:
        self.text = ""
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def _watch(self) -> None:
        seen: set[str] = set()
        looks: Counter[str] = Counter()
        while not self._end.wait(0.05):
            for process in Path("/proc").glob("[0-9]*"):
                looks[process.name] += 1
                if looks[process.name] > 3:  # by then it has become what it is
                    continue
                with suppress(OSError):
                    seen |= {
                        (process / part).read_bytes().decode(errors="replace")
                        for part in ("cmdline", "environ")
                    }
        self.text = "\n".join(seen)


def test_keys_open_to_others_are_refused(home: Path) -> None:
    with taken_down(fresh("open")) as name:
        (home / name).mkdir(parents=True, mode=0o755)
        assert "is open to others" in refused(roost("up", "--name", name))
        assert held(name) == set()
        (home / name).chmod(0o700)
