"""What a node does when its daemons die, when nothing helps, and when it is told to stop."""

from __future__ import annotations

import json
import re
import urllib.error
import urllib.request
from collections.abc import Iterator
from functools import partial

import pytest
from node_bench import (
    Containers,
    Node,
    Trio,
    docker,
    done,
    eventually,
    healthy,
    private,
    seen_as,
    submit,
    tail,
    unless,
)

from roost_node import logs

pytestmark = pytest.mark.engine

#: Docker looks every second, and believes the first answer.
EAGER = ("--health-interval", "1s", "--health-retries", "1", "--health-start-period", "0s")


@pytest.fixture(scope="module")
def pool(shared: Containers) -> Iterator[Trio]:
    # A collector that was restarted knows the others after one interval: 60 s, but for this.
    config = private(shared.directory / "fast.conf", "UPDATE_INTERVAL = 10\n")
    trio = Trio(
        shared, submit=["-u", "john"], execute=["--cpus", "2", "--memory", "512"],
        everywhere=["-c", "/c"], options=["-v", f"{config}:/c:ro"],
    )  # fmt: skip
    trio.admit()
    trio.ready()
    yield trio


def replaced(node: Node, process: str, old: int) -> bool:
    """Whether another process of that name runs, and the node is well with it."""
    now = node.pid(process)
    assert now not in (0, old), f"{process} is {now}, was {old}"
    assert node.health() == "healthy", node.health()
    return True


def test_daemons_that_are_killed_are_restarted(pool: Trio) -> None:
    victims = [
        (pool.execute, "condor_startd"),
        (pool.submit, "condor_schedd"),
        (pool.master, "condor_negotiator"),
    ]
    old = {process: node.pid(process) for node, process in victims}
    assert all(old.values()), old
    for node, process in victims:
        node.sh(f"kill -9 {old[process]}")
    for node, process in victims:
        eventually(partial(replaced, node, process, old[process]), 60, node)
    collector = pool.master.pid("condor_collector")
    pool.master.sh(f"kill -9 {collector}")
    for node in pool.nodes:
        eventually(partial(replaced, pool.master, "condor_collector", collector), 60, pool.master)
        healthy(node, 90)
    submit(pool.submit, "john", "hostname", name="after")
    assert done(pool.submit, "john", "after").strip() == pool.execute.hostname


def unrelayed(node: Node) -> list[str]:
    """Lines of the daemons' log files that are not in the container's log."""
    there = {line.rstrip() for line in node.lines()}
    found = []
    for entry in node.sh("cd /var/log/condor && grep -aH '' *").splitlines():
        file, _, line = entry.partition(":")
        daemon = logs.label(file.removesuffix(".old"))
        if daemon and f"{daemon} | {line}".rstrip() not in there:
            found.append(entry)
    return found


def test_no_line_is_lost_when_a_node_is_killed(pool: Trio) -> None:
    """supervisord relays the logs; what it had not relayed when it died comes after a restart."""
    pool.submit.sh(
        "cat > burst.sub", user="john",
        stdin="executable = /bin/true\nlog = burst.log\nshould_transfer_files = Yes\n"
        "when_to_transfer_output = ON_EXIT\nrequest_memory = 32\nqueue 8\n",
    )  # fmt: skip
    pool.submit.sh("condor_submit burst.sub", user="john")
    for node in (pool.master, pool.submit):
        node.sh(f"kill -9 {supervisord(node)}")
        # Nothing works on in a container without it.
        assert node.ended(20) == 128 + 9
        docker("start", node.name)
        healthy(node)
    status, text = pool.submit.tried("condor_wait -wait 90 burst.log", user="john")
    assert status == 0, text + tail(pool.submit)
    for node in pool.nodes:
        eventually(partial(unless, unrelayed, node), 20, node)
    # The comparison is worth something: the files hold what the jobs did.
    assert "exited with status 0" in pool.submit.sh("cat /var/log/condor/ShadowLog")


def supervisord(node: Node) -> int:
    """The process id of the node's supervisord, the only child of tini."""
    return int(node.sh("cat /proc/1/task/1/children").split()[0])


def test_a_node_that_cannot_do_its_work_says_why(pool: Trio) -> None:
    pool.master.sh("condor_off -negotiator")
    eventually(
        lambda: pool.master.health() == "the collector knows no negotiator yet", 30, pool.master
    )
    pool.master.sh("condor_on -negotiator")
    healthy(pool.master)


def ask(node: Node, port: int) -> tuple[int, dict[str, object]]:
    """Status and body of GET /health."""
    try:
        with urllib.request.urlopen(f"http://{node.ip}:{port}/health", timeout=20) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)
    except OSError as error:
        raise AssertionError(f"no answer on {port}: {error}") from None


def test_health_over_http_and_in_the_engine(containers: Containers) -> None:
    node = containers.run("health", "-m", "--health-port", "5000", options=EAGER)
    well = {"healthy": True, "role": "master", "why": ""}
    eventually(lambda: ask(node, 5000) == (200, well), 40, node)
    eventually(partial(seen_as, node, "healthy"), 20, node)
    node.sh("condor_off -collector")
    eventually(partial(seen_as, node, "unhealthy"), 30, node)
    status, body = ask(node, 5000)
    assert (status, body["healthy"]) == (503, False)
    assert str(body["why"]).startswith("the collector does not answer: ")
    node.sh("condor_on -collector")
    eventually(lambda: ask(node, 5000) == (200, well), 60, node)
    eventually(partial(seen_as, node, "healthy"), 20, node)


def test_a_node_ends_when_its_payload_cannot_live(pool: Trio, containers: Containers) -> None:
    ends = containers.directory
    killed = containers.run("killed", "-m")
    failing = private(ends / "failing.conf", "COLLECTOR = /bin/false\nMASTER_BACKOFF_CEILING = 1\n")
    hopeless = containers.run(
        "hopeless", "-m", "-c", "/c", options=["-v", f"{failing}:/c:ro"]
    )  # fmt: skip
    # SPOOL is a place where not even root may write.
    spool = private(ends / "spool.conf", "SPOOL = /proc/1\nMASTER_BACKOFF_CEILING = 1\n")
    token = private(ends / "token", pool.master.sh("roost-node join-token submit"))
    spoilt = containers.run(
        "spoilt", "-s", pool.master.ip, "-S", "/t", "-c", "/c",
        options=["-v", f"{spool}:/c:ro", "-v", f"{token}:/t:ro"],
    )  # fmt: skip
    healthy(killed)
    killed.sh(f"kill -9 {killed.pid('condor_master')}")
    assert killed.ended(20) == 3
    assert killed.said()[-1] == (
        "condor_master was killed; the container ends, so that no orphan works on"
    )
    assert hopeless.ended(100) == 3
    assert re.fullmatch(
        r"the collector ended 6 times in a row, the last time with status 1; its own log lines"
        r" above say why",
        hopeless.said()[-1],
    )
    assert spoilt.ended(100) == 3
    assert "status" in spoilt.said()[-1]
    assert "/proc/1" in "\n".join(spoilt.lines())


def test_the_master_is_gone(pool: Trio) -> None:
    """Also the end of the pool: who is left says so, and everybody stops when told to."""
    job = submit(pool.submit, "john", "trap '' TERM; while :; do sleep 1; done", name="stubborn")
    # After all that the tests before did to the nodes, their matching may need a minute.
    eventually(
        lambda: pool.submit.sh(f"condor_q {job} -af JobStatus").split() == ["2"], 150,
        *pool.nodes,
        what=lambda: pool.submit.tried("condor_q -all -nobatch; condor_status")[1],
    )  # fmt: skip
    address = pool.master.ip
    code, seconds = pool.master.stop()
    assert (code, seconds < 10) == (0, True), f"{code} after {seconds} s{tail(pool.master)}"
    for node in (pool.submit, pool.execute):
        assert node.health().startswith(f"the collector on {address} does not answer: ")
    # A job that ignores TERM: MachineMaxVacateTime, and no SIGKILL for the node.
    code, seconds = pool.execute.stop()
    assert (code, seconds < 28) == (0, True), f"{code} after {seconds} s{tail(pool.execute)}"
    code, seconds = pool.submit.stop()
    assert (code, seconds < 15) == (0, True), f"{code} after {seconds} s{tail(pool.submit)}"
