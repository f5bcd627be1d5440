"""Where a pool's nodes go on several hosts, and what each is told of it."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from roost import specfile
from roost.errors import PoolFileError
from roost.placing import Placement, place, submit_port
from roost.plan import Keyless, Observed, ObservedNode, diff, plan
from roost.spec import PoolSpec
from roost_node.vocab import LABEL_SPEC

PUBLISHED = """\
name: lab
hosts:
  - {name: head, address: 192.0.2.1, execute: {cpu: 1}}
  - {name: far, docker: ssh://me@far, execute: {cpu: 2, gpu: 1}}
execute: [{name: cpu}, {name: gpu}]
"""
ROUTED = """\
name: lab
network: {name: calinet1, master: 10.1.0.9}
hosts: [{name: head}, {name: far, docker: ssh://me@far, execute: {execute: 2}}]
"""


def _spec(text: str) -> PoolSpec:
    return specfile.parse(text, "pool.yaml")


def _hosts(spec: PoolSpec) -> dict[str, str]:
    return {node.name: node.host for node in plan(spec, Keyless()).nodes}


def test_the_counts_are_the_hosts() -> None:
    assert _hosts(_spec(PUBLISHED)) == {
        "lab-master": "head", "lab-submit": "head", "lab-cpu-1": "head", "lab-cpu-2": "far",
        "lab-cpu-3": "far", "lab-gpu-1": "far",
    }  # fmt: skip


def test_scaled_the_hosts_take_turns_and_nobody_moves() -> None:
    spec = _spec(PUBLISHED)
    grown = _hosts(spec.scaled({"cpu": 6}))
    assert grown.items() >= _hosts(spec).items()
    assert Counter(host for name, host in grown.items() if "-cpu-" in name) == {
        "head": 2, "far": 4,
    }  # fmt: skip
    assert Counter(_hosts(spec.scaled({"cpu": 2})).values())["far"] == 2


def test_a_group_that_no_host_names_is_on_the_first() -> None:
    text = PUBLISHED.replace(", gpu: 1", "")
    assert _hosts(_spec(text))["lab-gpu-1"] == "head"


def test_published() -> None:
    spec = _spec(PUBLISHED)
    assert place(spec, "master", "lab-master") == Placement(
        "head", "lab-head", ("--forward", "192.0.2.1:9618", "-P", "lab.head"), (9618, 9619),
        "192.0.2.1",
    )  # fmt: skip
    submit = place(spec, "submit", "lab-master")
    assert submit.options == ("--forward", "192.0.2.1:9620", "-P", "lab.head")
    assert submit.publish == (9620,) == (submit_port(spec),)
    near, far = (place(spec, "execute", "lab-master", "cpu", index) for index in (1, 2))
    assert near == Placement("head", "lab-head", ("-P", "lab.head"))
    assert far == Placement("far", "lab-far", names=(("lab-master", "192.0.2.1"),))


def test_routed() -> None:
    spec = _spec(ROUTED)
    assert place(spec, "master", "m") == Placement("head", "calinet1", address="10.1.0.9")
    assert place(spec, "execute", "m", "execute", 1) == Placement(
        "far", "calinet1", names=(("m", "10.1.0.9"),)
    )
    assert plan(spec, Keyless()).networks == ()
    assert submit_port(spec) == 9618


def test_each_host_has_a_network_and_the_first_the_volumes() -> None:
    made = plan(_spec(PUBLISHED), Keyless())
    assert {network.name: network.host for network in made.networks} == {
        "lab-head": "head", "lab-far": "far",
    }  # fmt: skip
    assert {volume.host for volume in made.volumes} == {"head"}


def test_an_executor_whose_host_changed_is_made_anew_and_no_other() -> None:
    before = plan(_spec(PUBLISHED), Keyless())
    nodes = tuple(
        ObservedNode(node.name, node.role, node.group, node.image, node.labels[LABEL_SPEC],
                     "running", "healthy", networks=(node.network,), host=node.host)
        for node in before.nodes
    )  # fmt: skip
    there = Observed("lab", tuple(each.name for each in before.networks),
                     tuple(each.name for each in before.volumes), nodes)  # fmt: skip
    assert diff(before, there) == ()
    after = plan(_spec(PUBLISHED.replace("gpu: 1", "").replace("cpu: 1}", "cpu: 1, gpu: 1}")),
                 Keyless())  # fmt: skip
    steps = diff(after, there)
    assert {getattr(step, "item", None) and step.item.name for step in steps} == {  # type: ignore[union-attr]
        None, "lab-gpu-1",
    }  # fmt: skip


def test_without_hosts_nothing_is_said_of_them() -> None:
    for node in plan(PoolSpec(), Keyless()).nodes:
        assert node.placement == Placement(network="roost")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("address: 192.0.2.1, ", ""), "head must be reached by the others: give it `address`"),
        (("address: 192.0.2.1", "address: head.example"), "not an IP address"),
        (("ssh://me@far", "tcp://far:2376"), "whoever reaches that port is root there"),
        (("docker: ssh://me@far", "docker: far"), "write it as ssh://user@host"),
        (("docker: ssh://me@far", "tls: /certs"), "goes with `docker: tcp://…` alone"),
        (("name: far", "name: head"), "two hosts of one name"),
        (("gpu: 1", "gup: 1"), "executors of gup, which is no group"),
        (("name: lab\n", "name: lab\nengine: podman\n"), "which take Docker alone"),
        (("name: lab\n", "name: lab\nmaster: {count: 2}\n"), "set master.count to 1"),
        (("name: lab\n", "name: lab\nnetwork: {name: x}\n"), "as network.master"),
        (("name: lab\n", "name: lab\nnetwork: {master: 10.0.0.1}\n"), "no network.name"),
    ],
)
def test_hosts_that_cannot_be(change: tuple[str, str], said: str) -> None:
    assert change[0] in PUBLISHED
    with pytest.raises(PoolFileError, match=said):
        _spec(PUBLISHED.replace(*change))


def test_an_address_on_a_network_that_is_one_hosts_alone() -> None:
    with pytest.raises(PoolFileError, match="which is for several `hosts`; leave it out"):
        _spec("network: {name: x, master: 10.0.0.1}")


def test_a_count_in_the_file_wins() -> None:
    spec = _spec(PUBLISHED.replace("{name: cpu}", "{name: cpu, count: 5}"))
    assert [group.count for group in spec.execute] == [5, 1]


def test_from_python() -> None:
    hosts: Any = [{"name": "head", "execute": {"execute": 3}}]
    assert PoolSpec(hosts=hosts).executors == 3
    assert PoolSpec.model_validate_json(PoolSpec(hosts=hosts).model_dump_json()).executors == 3
