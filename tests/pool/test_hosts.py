"""One pool on two Docker engines, each in a network namespace of its own: by NAT, and routed."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hosts_bench import FAR, HEAD, Machine, Machines, machines
from node_bench import eventually
from roost_bench import at_home, fresh, write

from roost._run import run

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def two(image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machines]:
    with at_home(tmp_path_factory.mktemp("home")), machines(image) as made:
        yield made


@contextmanager
def up(two: Machines, directory: Path, text: str) -> Iterator[str]:
    """The pool's name; the first job has run on `far`, where all its executors are."""
    name = fresh("hosts")
    before = two.held()
    file = write(directory / "pool.yaml", f"name: {name}\n{text}")
    try:
        two.well("up", file)
        yield name
    finally:
        two.well("down", "--name", name)
        assert two.held() == before


def told(two: Machines, pool: str) -> dict[str, str]:
    """Machine → the address that its startd tells the collector."""
    said = two.well("exec", "--name", pool, "submit", "--", "condor_status", "-af", "Machine",
                    "MyAddress")  # fmt: skip
    return dict(line.split() for line in said.splitlines())


def ran_on(two: Machines, pool: str, directory: Path, machine: str) -> str:
    """Where a job ran that asked for that machine."""
    write(directory / "where.sh", "#!/bin/sh\nhostname\n", 0o755)
    file = write(
        directory / "where.sub",
        "executable = where.sh\noutput = where.out\nlog = where.log\n"
        f'requirements = Machine == "{machine}"\nqueue\n',
    )
    two.well("submit", "--wait", "--name", pool, file)
    return (directory / "where.out").read_text().strip()


def said(machine: Machine, node: str) -> str:
    """What roost-node itself said there."""
    lines = run(["docker", "--host", machine.socket, "logs", node]).text.splitlines()
    return "\n".join(line for line in lines if line.startswith("roost | "))


def test_behind_nat(two: Machines, tmp_path: Path) -> None:
    """Nobody can call `far`: it has no port open, and nobody but the router knows a way to it."""
    text = f"""\
hosts:
  - {{name: head, docker: "{two.head.socket}", address: {HEAD}}}
  - {{name: far, docker: "{two.far.socket}", execute: {{execute: 1}}}}
execute: [{{memory: 256MiB}}]
"""
    with two.nat(), up(two, tmp_path, text) as pool:
        executor = f"{pool}-execute-1"
        status = json.loads(two.well("status", "--json", "--name", pool))
        assert {node["name"]: node["host"] for node in status["nodes"]} == {
            f"{pool}-master": "head", f"{pool}-submit": "head", executor: "far",
        }  # fmt: skip
        assert two.far.docker("ps", "-q", "--filter", "publish=1-65535").strip() == ""
        assert f"the master sees this node as {HEAD.rpartition('.')[0]}.2" in said(
            two.far, executor
        )
        assert "CCBID=" in told(two, pool)[executor]
        report = json.loads(two.well("doctor", "--network", "--json", "--name", pool))
        assert report["findings"] == []
        ways = {(p["roles"][0], p["roles"][1]): p["port"] for p in report["pairs"]}
        assert ways["submit", "execute"] == ways["master", "execute"] == "by CCB"
        assert ways["execute", "submit"] == ways["execute", "master"] == "open"
        _join_by_hand(two, pool, tmp_path)

        # without CCB nobody reaches it, and doctor says why
        alone = "echo CCB_ADDRESS = > /etc/condor/config.d/91-none.conf; condor_restart"
        two.well("exec", "--name", pool, "execute-1", "--", "sh", "-c", alone)
        eventually(lambda: "CCBID=" not in told(two, pool).get(executor, "CCBID="), 90)
        done = two.roost("doctor", "--network", "--json", "--name", pool)
        assert done.status == 1
        (error,) = [f for f in json.loads(done.text)["findings"] if f["severity"] == "error"]
        assert error["where"] == executor
        assert "it is behind NAT" in error["what"]
        assert "has no CCB" in error["what"]


def _join_by_hand(two: Machines, pool: str, directory: Path) -> None:
    """The line of `roost join`, typed on a machine that roost knows nothing of; on its own network,
    as `--network host` makes it."""
    invitation = json.loads(two.well("join", "execute", "--json", "--name", pool))
    assert invitation["address"] == HEAD
    line = invitation["line"].replace("docker run -d", "docker run -d --network host")
    line = line.replace("-S /run/token", "-S /run/token --cpus 1 --memory 256")
    env = {"DOCKER_HOST": two.far.socket, "PATH": "/usr/bin:/bin"}
    two.far.inside("sh", "-c", f"cd {directory} && {line}", env=env).check()
    node = invitation["node"]
    try:
        eventually(lambda: node in told(two, pool), 90, what=lambda: said(two.far, node))
        assert "CCBID=" in told(two, pool)[node]
        # it has the machine's interfaces: Docker's bridge is one of them
        assert re.search(rf"several addresses .* tells others {FAR}, from which it reaches the "
                         rf"master at {HEAD}", said(two.far, node))  # fmt: skip
        assert ran_on(two, pool, directory, node) == node
    finally:
        two.far.docker("rm", "-f", "-v", node)


def test_routed(two: Machines, tmp_path: Path) -> None:
    """A network that both engines have; the far one is spoken to by TCP and TLS."""
    network = fresh("wide")
    text = f"""\
network: {{name: {network}, master: 10.201.0.77}}
hosts:
  - {{name: head, docker: "{two.head.socket}"}}
  - {{name: far, docker: "tcp://{FAR}:2376", tls: "{two.certificate}", execute: {{execute: 1}}}}
execute: [{{memory: 256MiB}}]
"""
    with two.routed(network), up(two, tmp_path, text) as pool:
        executor = f"{pool}-execute-1"
        at = two.address(executor, two.far)
        assert at.startswith("10.202.0.")
        assert f"<{at}:9618" in told(two, pool)[executor]
        assert "CCBID=" not in told(two, pool)[executor]
        assert ran_on(two, pool, tmp_path, executor) == executor
        report = json.loads(two.well("doctor", "--network", "--json", "--name", pool))
        assert report["findings"] == []
        assert {p["port"] for p in report["pairs"]} == {"open"}
        two.well("scale", "2", "--name", pool)
        assert two.well("exec", "--name", pool, "execute-2", "--", "hostname").strip() == (
            f"{pool}-execute-2"
        )
        two.well("drain", f"{pool}-execute-1", "--name", pool)
        assert executor not in two.held()["far"]
