"""Several engines as one: what goes where, and how it is found again."""

from __future__ import annotations

import pytest

from roost.apply import apply
from roost.engines.fake import FakeEngine
from roost.engines.hosts import HostsEngine
from roost.engines.oci import DOCKER, At, OciEngine
from roost.errors import EngineError, ImageMissing
from roost.plan import Keyless, Ref, diff, everything, plan
from roost.spec import Host, PoolSpec

SPEC = PoolSpec(
    name="lab",
    hosts=(
        Host(name="head", address="192.0.2.1"),
        Host(name="far", docker="ssh://me@far", execute={"execute": 2}),
    ),
)


@pytest.fixture
def fakes() -> dict[str, FakeEngine]:
    return {name: FakeEngine() for name in ("head", "far")}


@pytest.fixture
def engine(fakes: dict[str, FakeEngine]) -> HostsEngine:
    made = HostsEngine(fakes)
    list(apply(diff(plan(SPEC, Keyless()), made.observe("lab")), made))
    return made


def test_each_item_is_on_its_host(engine: HostsEngine, fakes: dict[str, FakeEngine]) -> None:
    head, far = (fakes[name].observe("lab") for name in ("head", "far"))
    assert head.networks == ("lab-head",)
    assert head.volumes == ("lab-home", "lab-spool", "lab-state")
    assert [node.name for node in head.nodes] == ["lab-master", "lab-submit"]
    assert (far.networks, far.volumes) == (("lab-far",), ())
    assert [node.name for node in far.nodes] == ["lab-execute-1", "lab-execute-2"]
    assert {node.name: node.host for node in engine.observe("lab").nodes} == {
        "lab-master": "head", "lab-submit": "head",
        "lab-execute-1": "far", "lab-execute-2": "far",
    }  # fmt: skip
    assert diff(plan(SPEC, Keyless()), engine.observe("lab")) == ()


def test_a_command_goes_where_its_node_is(
    engine: HostsEngine, fakes: dict[str, FakeEngine]
) -> None:
    fresh = HostsEngine(fakes)  # has observed nothing yet
    for each in (engine, fresh):
        each.exec(Ref("node", "lab-execute-2"), ["true"])
    assert [call.node for call in fakes["far"].calls] == ["lab-execute-2"] * 2
    assert fakes["head"].calls == []
    with pytest.raises(EngineError, match="there is no node lab-nobody"):
        fresh.exec(Ref("node", "lab-nobody"), ["true"])


def test_what_is_retired_goes_wherever_it_is(
    engine: HostsEngine, fakes: dict[str, FakeEngine]
) -> None:
    list(engine.retire([Ref("node", "lab-execute-1")]))
    assert [node.name for node in fakes["far"].observe("lab").nodes] == ["lab-execute-2"]
    list(apply(everything(engine.observe("lab")), engine, rollback=False))
    assert not any(fake.observe("lab") for fake in fakes.values())


def test_an_image_that_only_some_hosts_have() -> None:
    engine = HostsEngine({"head": FakeEngine(images={"i"}), "far": FakeEngine(images=())})
    with pytest.raises(ImageMissing, match="the image i is not on far"):
        engine.has_image("i")
    assert not engine.has_image("other")


def test_all_hosts_together(engine: HostsEngine) -> None:
    assert engine.info().cpus == 16
    assert engine.pools() == ["lab"]


@pytest.mark.parametrize(
    ("at", "flags"),
    [
        (At("head"), []),
        (At("far", "ssh://me@far"), ["--host=ssh://me@far"]),
        (At("far", "tcp://far:2376", "/certs"),
         ["--host=tcp://far:2376", "--tlsverify", "--tlscacert=/certs/ca.pem",
          "--tlscert=/certs/cert.pem", "--tlskey=/certs/key.pem"]),
    ],
)  # fmt: skip
def test_how_a_hosts_docker_is_called(at: At, flags: list[str]) -> None:
    argv = OciEngine(DOCKER, at).interactive(Ref("node", "n"), ["sh"])
    assert argv == ["docker", *flags, "exec", "--interactive", "--tty", "n", "sh"]
