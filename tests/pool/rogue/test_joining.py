"""Who gets into a pool that `roost up` made: by a line, by approval, and not at all."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator

import pytest
from node_bench import Containers, Node, docker, eventually, healthy
from roost_bench import at_home, fresh, refused, roost, taken_down, well

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def pool(image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with (
        at_home(tmp_path_factory.mktemp("joining")),
        taken_down(fresh("join")) as name,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setenv("ROOST_POOL", name)
        well("up")
        yield name


def run_line(pool: str, make: Containers, line: str, name: str) -> Node:
    """The line as it stands, but in the pool's network, which no other machine is in."""
    node = Node(name)
    make.nodes.append(node)
    line = line.replace("docker run -d ", f"docker run -d --network {pool} ")
    subprocess.run(["bash", "-c", line], cwd=make.directory, check=True, capture_output=True)
    return node


def test_the_line_lets_one_node_in(pool: str, containers: Containers) -> None:
    asked = json.loads(well("join", "execute", "--json"))
    node = run_line(pool, containers, asked["line"], asked["node"])
    healthy(node)
    assert [line for line in node.said() if "approve" in line] == []
    token = (containers.directory / f"{node.name}.token").read_text().strip()
    shown = docker("inspect", node.name) + "".join(node.lines()) + well("logs", "master")
    assert token not in shown
    machines = well("exec", "submit", "condor_status", "-af", "Machine").split()
    assert sorted(machines) == sorted([f"{pool}-execute-1", node.name])
    # Once: the same line admits nobody else, whatever the name.
    again = asked["line"].replace(f"--name {node.name} --hostname {node.name}",
                                  f"--name {node.name}-b --hostname other")  # fmt: skip
    late = run_line(pool, containers, again, f"{node.name}-b")
    eventually(lambda: any("the join token is used up" in line for line in late.said()), 60, late)
    assert "other" not in well("exec", "submit", "condor_status", "-af", "Machine")


def test_approval_from_the_command(pool: str, containers: Containers) -> None:
    master = f"{pool}-master"
    on = ["--network", pool]
    node = containers.run("byhand", "-e", master, options=on)
    unwanted = containers.run("unwanted", "-e", master, options=on)

    def two() -> dict[str, dict[str, str]]:
        rows = json.loads(well("approve", "--list", "--json"))
        return {row["name"]: row for row in rows} if len(rows) == 2 else {}

    waiting = eventually(two, 60, node, unwanted)
    mine = waiting[f"exec-{node.hostname}"]
    assert f"key {mine['fingerprint']}:" in " ".join(node.said())
    assert well("approve", mine["id"]).startswith(f"approved exec-{node.hostname}, key ")
    healthy(node)
    other = waiting[f"exec-{unwanted.hostname}"]["id"]
    assert well("approve", "--refuse", other).startswith("refused exec-")
    assert unwanted.ended() == 2
    assert "Nobody waits." in well("approve")


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["join", "master"], "cannot join as 'master'"),
        (["join", "execute", "--expires", "soon"], "'soon' is not a time"),
        (["join", "execute", "--expires", "9999d"], "at most a year"),
        (["join", "execute", "--uses", "0"], "is not in the range"),
        (["join", "execute", "--address", "a b;c"], "neither a host name nor an address"),
        (["approve", "../../etc"], "no request '../../etc' waits"),
        (["approve", "--network", "all"], "'all' is not a network"),
        (["approve", "--network", "10.0.0.0/8", "--for", "9d"], "at most 24h"),
        (["approve", "--refuse"], "needs the ids"),
        (["approve", "x", "--list"], "not two of them"),
    ],
)
def test_bad_input_is_one_sentence(pool: str, argv: list[str], says: str) -> None:
    assert says in refused(roost(*argv))
