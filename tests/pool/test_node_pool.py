"""A pool of plain `docker run`: by address, host names random, no DNS between the nodes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial

import pytest
from node_bench import (
    Containers,
    Node,
    Trio,
    done,
    eventually,
    healthy,
    seen_as,
    submit,
    tail,
    unless,
    waiting,
)
from roost_bench import EXAMPLES

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def pool(shared: Containers) -> Iterator[Trio]:
    """john's access point, and an executor that advertises 4 CPUs and 512 MiB."""
    trio = Trio(shared, submit=["-u", "john"], execute=["--cpus", "4", "--memory", "512"])
    rows = eventually(lambda: waiting(trio.master, 2), 60, *trio.nodes)

    def advice(node: Node) -> list[str]:
        return [line for line in node.said() if "roost-node approve" in line]

    for node, prefix in ((trio.submit, "ap-"), (trio.execute, "exec-")):
        name = prefix + node.hostname
        (row,) = [row for row in rows.values() if row["name"] == name]
        assert row["address"] == node.ip
        said = eventually(partial(advice, node), 20, node)[-1]
        # What the administrator compares, and the line that he copies.
        assert f"to admit {name}, key {row['fingerprint']}:" in said
        assert said.endswith(f"docker exec {trio.master.hostname} roost-node approve {row['id']}")
        assert trio.master.sh(f"roost-node approve {row['id']}").startswith(f"approved {name}")
    assert trio.master.sh("roost-node approve --list") == "nobody waits\n"
    trio.ready()
    trio.submit.sh("useradd -m jane")
    yield trio


def test_the_pool_shows_what_the_executor_was_given(pool: Trio) -> None:
    shown = pool.submit.sh("condor_status -af Name Cpus Memory SlotType State", user="john")
    name = f"slot1@{pool.execute.hostname}"
    assert shown.split() == [name, "4", "512", "Partitionable", "Unclaimed"]


def test_a_job_of_each_user_runs_as_its_slot_and_comes_back(pool: Trio) -> None:
    users = ("john", "jane")
    for user in users:
        # john was made with -u, jane with plain useradd a moment ago.
        assert "Total for query" in pool.submit.sh("condor_q", user=user)
        submit(pool.submit, user, "echo to stderr >&2; id -un; id -u; hostname")
    for user in users:
        account, number, host = done(pool.submit, user).split()
        assert re.fullmatch(r"slot1_[0-9]+", account)
        assert int(number) > 30000
        assert host == pool.execute.hostname
        assert pool.submit.sh("cat job.err", user=user) == "to stderr\n"
        owner = pool.submit.sh("stat -c %U job.out", user=user).strip()
        assert owner == user


def test_the_2016_application_test(pool: Trio) -> None:
    """sleep.sh and sleep.sub as they are in examples/, with their 20 seconds."""
    for name in ("sleep.sh", "sleep.sub"):
        text = (EXAMPLES / "sleep" / name).read_text()
        pool.submit.sh(f"cat > {name}; chmod +x sleep.sh", user="john", stdin=text)
    pool.submit.sh("condor_submit sleep.sub", user="john")

    def runs() -> bool:
        states = pool.submit.sh("condor_status -af State Activity", user="john")
        queue = pool.submit.sh("condor_q -af JobStatus", user="john").split()
        return "Claimed Busy" in states and queue == ["2"]

    eventually(runs, 40, *pool.nodes)
    out = done(pool.submit, "john", "sleep")
    assert out.startswith(f"sleeping for 20 seconds on {pool.execute.hostname} as slot1_")
    assert out.endswith("done\n")


def test_nobody_removes_another_ones_job(pool: Trio) -> None:
    job = submit(pool.submit, "jane", "sleep 600", name="long")
    cluster = job.split(".")[0]
    held = f"condor_q {cluster} -all -af Owner"
    status, text = pool.submit.tried(f"condor_rm {cluster}", user="john")
    assert status != 0
    assert "Couldn't find/remove" in text
    assert pool.submit.sh(held).split() == ["jane"]
    pool.submit.sh(f"condor_rm {cluster}", user="jane")
    eventually(lambda: not pool.submit.sh(held).split(), 30, *pool.nodes)


def test_every_daemon_is_labelled_in_the_log(pool: Trio) -> None:
    submit(pool.submit, "john", "true", name="label")
    done(pool.submit, "john", "label")
    for node, daemons in (
        (pool.master, "roost supervisord master collector negotiator shared_port"),
        (pool.submit, "roost supervisord master schedd shadow shared_port"),
        (pool.execute, "roost supervisord master startd starter procd shared_port"),
    ):
        eventually(partial(unless, unlabelled, node, daemons), 15, node)
        odd = [line for line in node.lines() if " | " not in line]
        assert not odd, odd[:5]


def unlabelled(node: Node, daemons: str) -> set[str]:
    """The daemons of which there is no line."""
    labels = {line.partition(" | ")[0].split(" ")[0] for line in node.lines()}
    return set(daemons.split()) - labels


def test_no_zombies_after_twenty_jobs(pool: Trio) -> None:
    pool.submit.sh(
        "cat > many.sub", user="jane",
        stdin="executable = /bin/true\nlog = many.log\nshould_transfer_files = Yes\n"
        "when_to_transfer_output = ON_EXIT\nrequest_memory = 32\nqueue 20\n",
    )  # fmt: skip
    pool.submit.sh("condor_submit many.sub", user="jane")
    status, text = pool.submit.tried("condor_wait -wait 120 many.log", user="jane")
    assert status == 0, text + tail(pool.submit)
    for node in pool.nodes:
        # A zombie may stand for the moment until it is reaped; none may stay.
        eventually(partial(unless, zombies, node), 15, node)


def zombies(node: Node) -> list[str]:
    # `)` ends the command's name in /proc/PID/stat, whatever that name is; then comes the state.
    stats = node.tried("cat /proc/[0-9]*/stat 2>/dev/null")[1].splitlines()
    return [line for line in stats if line.rpartition(")")[2].split()[:1] == ["Z"]]


def test_the_engine_sees_every_node_healthy(pool: Trio) -> None:
    for node in pool.nodes:
        eventually(partial(seen_as, node, "healthy"), 40, node)


def test_no_secret_is_where_others_look(pool: Trio) -> None:
    token = pool.master.sh("roost-node join-token execute --expires 5m").strip()
    for node in pool.nodes:
        keys = node.sh("cat /var/lib/roost/node.key /var/lib/roost/ca.key 2>/dev/null || true")
        secrets = [line for line in keys.splitlines() if len(line) == 64]
        assert len(secrets) == (4 if node is pool.master else 2), "a key was not found to look for"
        secrets += [token, token.split(".")[-1]]
        exposed = "\n".join(
            [
                str(node.inspect()),
                node.sh("cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ | tr '\\0' '\\n'"),
                *node.lines(),
            ]
        )
        assert "roost-node" in exposed
        assert not [secret for secret in secrets if secret in exposed]
        modes = node.sh("stat -c '%a %U' /var/lib/roost/*.key").split("\n")
        # A master's may run as HTCondor's user altogether, and no jobs run beside it.
        owner = "condor" if node is pool.master else "root"
        assert f"600 {owner}" in modes
        as_nobody = "setpriv --reuid=65534 --regid=65534 --clear-groups"
        status, text = node.tried(f"{as_nobody} cat /var/lib/roost/node.key")
        assert status != 0
        assert "denied" in text


@pytest.mark.parametrize("release", ["forky"])
def test_another_release(release: str, image_forky: str, shared: Containers) -> None:
    master = shared.run("f-master", "-m", image=image_forky)
    access = shared.run("f-submit", "-s", master.ip, "-u", "john", image=image_forky)
    execute = shared.run("f-execute", "-e", master.ip, image=image_forky)
    ids = eventually(lambda: waiting(master, 2), 60, master, access, execute)
    master.sh("roost-node approve " + " ".join(ids))
    for node in (master, access, execute):
        healthy(node)
    submit(access, "john", "sleep 2; id -un")
    assert done(access, "john").startswith("slot1_")
