"""Who is let in: join tokens that hold and that do not; and what an executor was given."""

from __future__ import annotations

from pathlib import Path

import pytest
from node_bench import (
    Containers,
    Node,
    done,
    eventually,
    healthy,
    private,
    refused,
    submit,
    waiting,
)

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def master(shared: Containers) -> Node:
    node = shared.run("master", "-m", "--pool", "physics")
    healthy(node)
    return node


def with_token(
    make: Containers, of: str, token: str | Path, *argv: str, options: tuple[str, ...] = ()
) -> Node:
    """A node that got this token, or this file for one."""
    directory = make.directory
    file = token if isinstance(token, Path) else private(directory / f"{of}.token", token)
    return make.run(
        of, *argv, "-S", "/run/token", options=["-v", f"{file}:/run/token:ro", *options]
    )


def token(master: Node, role: str = "execute", *more: str) -> str:
    return master.sh(" ".join(["roost-node join-token", role, *more]))


def test_tokens_admit_at_once_and_limits_are_advertised(master: Node, shared: Containers) -> None:
    address = master.ip
    access = with_token(shared, "submit", token(master, "submit"), "-s", address, "-u", "john")
    execute = with_token(
        shared, "execute", token(master), "-e", address,
        options=("--memory", "300m", "--cpus", "1", "--ulimit", "nofile=1024:1024"),
    )  # fmt: skip
    for node, prefix in ((access, "ap-"), (execute, "exec-")):
        healthy(node)
        assert any(
            line.startswith("admitted to pool physics by ")
            and f" as {prefix}{node.hostname}, " in line
            for line in node.said()
        )
        # Nobody was asked, and the token itself is nowhere to be read.
        assert not [line for line in node.said() if "approve" in line]
    given = master.sh("condor_status -af Cpus Memory")
    assert given.split() == ["1", "300"]
    assert execute.sh("ulimit -Hn").strip() == "1024"
    submit(access, "john", "hostname")
    assert done(access, "john").strip() == execute.hostname


def test_a_token_that_does_not_hold(master: Node, shared: Containers) -> None:
    address = master.ip
    other = shared.run("other", "-m")
    healthy(other)
    once = token(master)
    expired = token(master, "execute", "--expires", "1s")
    first = with_token(shared, "first", once, "-e", address)
    healthy(first)
    (shared.directory / "folder").mkdir()
    used, late, wrong, foreign, cut, folder, absent = (
        with_token(shared, "used", once, "-e", address),
        with_token(shared, "late", expired, "-e", address),
        with_token(shared, "wrong", token(master, "submit"), "-e", address),
        with_token(shared, "foreign", token(other), "-e", address),
        with_token(shared, "cut", token(master)[:-9], "-e", address),
        with_token(shared, "folder", shared.directory / "folder", "-e", address),
        shared.run("absent", "-e", address, "--join-token", "/run/token"),
    )
    assert "the join token is used up; make a new one" in refused(used)
    assert "the join token expired at 20" in refused(late)
    assert refused(wrong).startswith("the join token is for the role submit and this node is ")
    assert refused(foreign).startswith("the join token is for another pool: it is for 'roost' ")
    assert "serves 'physics'" in refused(foreign)
    assert refused(cut).startswith("the join token is unreadable: it was cut or changed")
    assert refused(folder).startswith("the join token /run/token is a directory, not a file")
    assert refused(absent) == "the join token /run/token does not exist"
    text = "\n".join(line for node in shared.nodes for line in node.lines())
    assert once.strip() not in text
    assert once.strip().split(".")[-1] not in text


def test_a_node_that_is_refused_ends(master: Node, containers: Containers) -> None:
    node = containers.run("unwanted", "-e", master.ip)
    (id,) = eventually(lambda: waiting(master, 1), 30, node, master)
    assert master.sh(f"roost-node refuse {id}").startswith(f"refused exec-{node.hostname}, key ")
    assert f"administrator refused exec-{node.hostname}" in refused(node)
    status, text = master.tried("roost-node approve 0123456789abcdef")
    assert (status, text.count("\n")) == (2, 1)
    assert "no request '0123456789abcdef' waits" in text


def test_an_open_network_admits_until_it_closes(master: Node, containers: Containers) -> None:
    early = containers.run("early", "-e", master.ip)
    eventually(lambda: waiting(master, 1), 30, early, master)
    master.sh(f"roost-node approve --network {early.ip}/32 --for 1m")
    healthy(early)
    late = containers.run("late", "-e", master.ip)
    # Another address is not let in.
    eventually(lambda: waiting(master, 1), 30, late, master)
    assert late.stop()[0] == 0
