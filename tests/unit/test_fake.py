"""The fake beyond the contract: what only a fake can do."""

from __future__ import annotations

import pytest

from roost._run import Completed
from roost.engines.base import Engine
from roost.engines.fake import Call, FakeEngine
from roost.errors import EngineError, NameTaken
from roost.plan import Network, Node, Ref
from roost.security import Secret
from roost_node.vocab import LABEL_POOL

NODE = Node(
    "p-cpu-1", "execute", "cpu", "image", (), "p", {LABEL_POOL: "p"}, files={"k": Secret(b"v")}
)


def test_it_is_an_engine() -> None:
    engine: Engine = FakeEngine()
    assert engine.pools() == []


def test_it_keeps_files_and_commands_and_gives_the_answers() -> None:
    fake = FakeEngine(answers=lambda node, argv: Completed(tuple(argv), 7, node.encode(), ""))
    list(fake.ensure(NODE))
    assert fake.files(NODE.name)["k"].reveal() == b"v"
    done = fake.exec(Ref("node", NODE.name), ["id"], user="john", stdin=b"in")
    assert (done.status, done.text) == (7, NODE.name)
    assert fake.calls == [Call(NODE.name, ("id",), "john", b"in")]


def test_it_fails_at_the_nth_ensure_and_then_no_more() -> None:
    fake = FakeEngine(fail_at=2)
    list(fake.ensure(Network("p", {LABEL_POOL: "p"})))
    with pytest.raises(EngineError, match="told to fail at p-cpu-1"):
        list(fake.ensure(NODE))
    assert fake.observe("p").nodes == ()
    list(fake.ensure(NODE))
    assert fake.observe("p").nodes[0].state == "running"


def test_foreign_names_are_taken() -> None:
    with pytest.raises(NameTaken):
        list(FakeEngine(foreign={"p-cpu-1"}).ensure(NODE))


def test_logs_health_and_the_end_are_told_to_it() -> None:
    fake = FakeEngine()
    list(fake.ensure(NODE))
    fake.say(NODE.name, "one", "two")
    ref = Ref("node", NODE.name)
    assert list(fake.logs(ref)) == ["one", "two"]
    assert list(fake.logs(ref, tail=1)) == ["two"]
    assert list(fake.logs(ref, tail=9)) == ["one", "two"]
    fake.feel(NODE.name, "unhealthy")
    assert fake.observe("p").nodes[0].health == "unhealthy"
    fake.end(NODE.name, 3)
    (seen,) = fake.observe("p").nodes
    assert (seen.state, seen.exit_code, seen.health) == ("exited", 3, "none")
