"""Certificates that end, are revoked or replaced, in pools where jobs run meanwhile."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from node_bench import Containers, Node, Trio, done, eventually, healthy, submit
from roost_bench import Json, at_home, fresh, refused, roost, taken_down, well, write

pytestmark = pytest.mark.engine

#: Long enough to be renewed on a slow machine, short enough to end while a job runs.
LIFETIME = 90


@pytest.fixture(scope="module")
def brief(shared: Containers) -> Trio:
    """A pool whose certificates soon end, with a job that outlives them; begun first of all."""
    master = shared.run("master", "-m", "--certificates", f"{LIFETIME}s")
    healthy(master)
    trio = Trio.__new__(Trio)
    trio.master = master
    options = []
    for role, letter in (("submit", "-s"), ("execute", "-e")):
        token = write(shared.directory / role, master.sh(f"roost-node join-token {role}"), 0o600)
        options = ["-v", f"{token}:/run/token:ro"]
        more = ["-u", "john"] if role == "submit" else []
        setattr(trio, role, shared.run(role, letter, master.ip, *more, "-S", "/run/token",
                                       options=options))  # fmt: skip
    trio.nodes = (master, trio.submit, trio.execute)
    trio.ready()
    submit(trio.submit, "john", f"sleep {LIFETIME + 10}; echo ran")
    return trio


@pytest.fixture(scope="module")
def pool(image: str, brief: Trio, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with (
        at_home(tmp_path_factory.mktemp("leaving")),
        taken_down(fresh("leave")) as name,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setenv("ROOST_POOL", name)
        well("up", "--executors", "2", "--memory", "256MiB")
        yield name


def start_job(directory: Path, seconds: int) -> str:
    """Submit a job that takes so long; the cluster."""
    write(directory / "job.sh", f"#!/bin/sh\nsleep {seconds}\necho ran\n", 0o755)
    file = write(
        directory / "job.sub",
        "executable = job.sh\noutput = job.out\nlog = job.log\n"
        "should_transfer_files = YES\nqueue\n",
    )
    return str(json.loads(well("submit", "--json", file))["cluster"])


def attribute(cluster: str, name: str, tool: str = "condor_q") -> str:
    return well("exec", "submit", "--", tool, cluster, "-af", name).strip()


def runs_on(cluster: str, other_than: str = "") -> str:
    """The node on which the job runs by now; another than that one."""

    def host() -> str:
        found = attribute(cluster, "RemoteHost").partition("@")[2]
        return "" if found in ("", other_than) or "undefined" in found else found

    return eventually(host, 90)


def pids(pool: str, *nodes: str) -> list[int]:
    """Of every daemon that must not be restarted."""
    daemons = {"master": "condor_collector", "submit": "condor_schedd"}
    return [Node(f"{pool}-{node}").pid(daemons.get(node, "condor_startd")) for node in nodes]


def test_a_node_is_revoked_while_it_runs_a_job(pool: str, tmp_path: Path) -> None:
    cluster = start_job(tmp_path, 5)
    well("wait", cluster)
    cluster = start_job(tmp_path, 600)
    there = runs_on(cluster)
    bad = Node(there)
    other = "execute-2" if there.endswith("-1") else "execute-1"
    rest = ("master", "submit", other)
    before = pids(pool, *rest)
    assert bad.tried("condor_status")[0] == 0
    # It is not one that obeys: it takes up no notice, and does not end by itself.
    supervisord = bad.pid("python3")
    bad.sh(f"kill -STOP {supervisord}")
    name = f"exec-{there}"
    said = json.loads(well("credential", "revoke", there, "--json"))
    assert said == {"revoked": [name]}
    ads = ("exec", "master", "--", "condor_status", "-any", "-af", "AuthenticatedIdentity")
    eventually(lambda: f"{name}@" not in well(*ads), 60, bad)
    assert f"exec-{pool}-{other}@" in well(*ads)
    assert runs_on(cluster, there) == f"{pool}-{other}"
    assert bad.running
    # Its live session with the collector, and a new one.
    eventually(
        lambda: f"PERMISSION DENIED to {name}@" in well("logs", "master", "--daemon", "collector"),
        90, bad,
    )  # fmt: skip
    status, text = bad.tried("condor_status")
    assert (status, "DENIED" in text) == (1, True), text
    assert Node(f"{pool}-{other}").tried("condor_status")[0] == 0
    rows: list[Json] = json.loads(well("credential", "ls", "--json"))
    assert [row["name"] for row in rows if row["revoked"]] == [name]
    assert pids(pool, *rest) == before
    # As it is by itself, it ends and says why.
    bad.sh(f"kill -CONT {supervisord}; roost-node renew --look")
    eventually(lambda: any(f"{name} is revoked: the pool refuses" in line for line in bad.said()),
               90, bad)  # fmt: skip
    well("rm", cluster)


def test_a_user_is_revoked_and_comes_back(pool: str) -> None:
    def asks() -> str:
        one = ("-append", "executable=/bin/true", "-append", "queue", "/dev/null")
        done = roost("exec", "submit", "--user", "user", "--", "condor_submit", "-terse", *one)
        return f"{done.stdout}{done.stderr}" if done.returncode else ""

    assert asks() == ""
    well("env")
    well("credential", "revoke", "user")
    eventually(asks, 60)
    assert "user is revoked in the pool" in refused(roost("env"))
    assert "nobody in the pool" in refused(roost("credential", "revoke", "nosuch"))
    well("credential", "revoke", "--undo", "user")
    eventually(lambda: asks() == "", 60)
    assert "user is not revoked" in refused(roost("credential", "revoke", "--undo", "user"))


def test_the_authority_is_replaced_while_a_job_runs(pool: str, tmp_path: Path) -> None:
    cluster = start_job(tmp_path, 30)
    node = Node(runs_on(cluster))
    rest = ("submit", node.name.removeprefix(f"{pool}-"))
    before, (collector,) = pids(pool, *rest), pids(pool, "master")
    node.sh("mkdir /var/tmp/old; cp /var/lib/roost/*.crt /var/lib/roost/node.key /var/tmp/old")
    well("credential", "rotate")
    assert node.tried("cmp -s /var/tmp/old/ca.crt /var/lib/roost/ca.crt")[0] == 1
    assert node.sh("grep -c BEGIN /var/lib/roost/ca.crt").strip() == "1"
    well("wait", cluster)
    assert (tmp_path / "job.out").read_text() == "ran\n"
    assert attribute(cluster, "NumJobStarts", "condor_history") == "1"
    assert pids(pool, *rest) == before
    # Its sessions were in its memory alone.
    assert pids(pool, "master") not in ([collector], [0])
    # What was good before is replayed, and refused; the same tool with what counts now is not.
    old = [
        "_CONDOR_AUTH_SSL_CLIENT_CERTFILE=/var/tmp/old/node.crt",
        "_CONDOR_AUTH_SSL_CLIENT_KEYFILE=/var/tmp/old/node.key",
    ]
    ask = "condor_status -af Name"
    assert node.sh(ask).strip()
    status, text = node.tried(" ".join(["env", *old, ask]))
    assert status != 0, text
    assert "Failed" in text or "failed" in text or "AUTHENTICATE" in text, text


def test_certificates_that_ended_were_renewed_under_a_running_job(brief: Trio) -> None:
    assert done(brief.submit, "john", seconds=180).strip() == "ran"
    starts = brief.submit.sh("condor_history -af NumJobStarts ExitCode").split()
    assert starts == ["1", "0"]
    for node in brief.nodes:
        kind = {"master": "issued the master's own", "submit": "renewed ap-"}
        text = kind.get(node.name.rsplit("-", 1)[-1], "renewed exec-")
        assert [line for line in node.lines() if line.startswith("renew | ") and text in line]
        healthy(node)


@pytest.mark.parametrize("what", ["CA", "certificate"])
def test_files_that_are_not_what_they_should_be(containers: Containers, what: str) -> None:
    state = containers.directory / "state"
    state.mkdir(mode=0o700)
    write(state / ("ca.crt" if what == "CA" else "node.crt"), "no certificate\n")
    (state / "node.key").mkdir()
    node = containers.run("odd", "-m", options=["-v", f"{state}:/var/lib/roost"])
    assert node.ended() == 2
    (line,) = [line for line in node.said() if "certificate" in line]
    assert "not a certificate in PEM" in line or "does not exist" in line
