"""`roost doctor --network`: from what nodes found out, to the cause of what fails."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from roost.observe.doctor import Finding
from roost.observe.network import LEVELS, Certificate, Pair, Place, judge
from roost_node.vocab import Role

NOW = 1_800_000_000.0
WHERE: Mapping[str, tuple[Role, str]] = {
    "lab-master": ("master", "10.0.0.2"),
    "lab-submit": ("submit", "10.0.0.3"),
    "lab-cpu-1": ("execute", "10.0.0.4"),
}


def _place(node: str, **changes: Any) -> Place:
    role, address = WHERE[node]
    return replace(
        Place(
            node=node, role=role, masters=("lab-master",), clock=NOW,
            told=f"<{address}:9618?alias={node}>", address=address, addresses={address: 1500},
            seen="" if role == "master" else address,
            certificate=Certificate(f"x-{node}", (node,), "ca", ("ca",), NOW - 9, NOW + 9),
            resolvers=("127.0.0.11",),
        ),
        **changes,
    )  # fmt: skip


def _pair(source: str, target: str, **changes: Any) -> Pair:
    roles = WHERE[source][0], WHERE[target][0]
    address = WHERE[target][1]
    return replace(
        Pair(
            source, target, roles, address=address, name=target, names=(address,), ping=0.1,
            ping_by="icmp", port="open", admit="open" if roles[1] == "master" else "", mtu=1500,
            tried=1500, levels=dict.fromkeys(LEVELS[roles], "ALLOW"),
        ),
        **changes,
    )  # fmt: skip


def _judged(
    places: Mapping[str, Mapping[str, Any]] | None = None,
    pairs: Mapping[tuple[str, str], Mapping[str, Any]] | None = None,
) -> Sequence[Finding]:
    """A pool in which all is well but for what is named."""
    there = {node: _place(node, **(places or {}).get(node, {})) for node in WHERE}
    tried = [
        _pair(source, target, **(pairs or {}).get((source, target), {}))
        for source in WHERE
        for target in WHERE
        if source != target
    ]
    return judge(there, tried, {})


def _to_executor(**changes: Any) -> dict[tuple[str, str], dict[str, Any]]:
    return {("lab-master", "lab-cpu-1"): changes, ("lab-submit", "lab-cpu-1"): changes}


SSL = {"READ": "Failed to authenticate using SSL"}
CLOSED: dict[str, Any] = {"port": "timeout", "ping": None, "mtu": None, "tried": 0, "levels": {}}


def test_nothing_is_wrong() -> None:
    assert _judged() == ()


@pytest.mark.parametrize(
    ("places", "pairs", "where", "cause", "fix"),
    [
        pytest.param(
            {}, {("lab-cpu-1", "lab-master"): {"names": (), "name_error": "Name not known"}},
            "lab-cpu-1 → lab-master", "name lab-master does not resolve .Name not known", "DNS",
            id="no name",
        ),
        pytest.param(
            {}, {("lab-cpu-1", "lab-master"): {"names": ("10.9.9.9",)}},
            "lab-cpu-1 → lab-master", "name lab-master is 10.9.9.9 there, which is not that node",
            "/etc/hosts", id="wrong name",
        ),
        pytest.param(
            {}, _to_executor(**CLOSED | {"ping": 0.2}),
            "lab-submit → lab-cpu-1", "TCP 9618 of 10.0.0.4 .* a firewall drops it",
            "let TCP 9618 pass", id="dropped",
        ),
        pytest.param(
            {}, _to_executor(**CLOSED | {"port": "refused", "ping": 0.2}),
            "lab-submit → lab-cpu-1", "a firewall rejects it", "let TCP 9618 pass", id="rejected",
        ),
        pytest.param(
            {"lab-cpu-1": {"listens": False}}, _to_executor(**CLOSED | {"port": "refused"}),
            "lab-submit → lab-cpu-1", "nothing listens", "roost logs lab-cpu-1", id="not running",
        ),
        pytest.param(
            {}, _to_executor(**CLOSED | {"port": "unreachable"}),
            "lab-submit → lab-cpu-1", "no route to 10.0.0.4", "routers", id="no route",
        ),
        pytest.param(
            {}, _to_executor(**CLOSED),
            "lab-submit → lab-cpu-1", "nothing comes back", "routes of both", id="black hole",
        ),
        pytest.param(
            {"lab-cpu-1": {"addresses": {"192.168.1.4": 1500}, "address": "192.168.1.4",
                           "seen": "10.0.0.99"}},
            _to_executor(**CLOSED, address="192.168.1.4", names=()),
            "lab-cpu-1", "behind NAT .*at 192.168.1.4, .* master sees it at 10.0.0.99.* no CCB",
            "-C MASTER:9618", id="NAT without CCB",
        ),
        pytest.param(
            {"lab-cpu-1": {"addresses": {"172.30.0.2": 1500, "10.0.0.4": 1500},
                           "address": "172.30.0.2"}},
            _to_executor(**CLOSED, address="172.30.0.2", elsewhere=("10.0.0.4",)),
            "lab-cpu-1", "several addresses and tells 172.30.0.2.*lab-master and lab-submit",
            "NETWORK_INTERFACE = 10.0.0.4", id="several addresses",
        ),
        pytest.param(
            {"lab-cpu-1": {"certificate": Certificate(
                "exec-b", ("lab-b",), "ca", ("ca",), NOW - 9, NOW + 9)}},
            _to_executor(levels=SSL),
            "lab-cpu-1", "certificate is for lab-b, and its name is lab-cpu-1", "--hostname",
            id="another name",
        ),
        pytest.param(
            {"lab-cpu-1": {"certificate": Certificate(
                "exec-lab-cpu-1", ("lab-cpu-1",), "x", ("x",), NOW - 9, NOW + 9)}},
            _to_executor(levels=SSL),
            "lab-cpu-1", "another pool's CA .x. than the master .ca.", "roost join",
            id="another pool's CA",
        ),
        pytest.param(
            {"lab-cpu-1": {"off": -3600.0, "clock": NOW - 3600}}, _to_executor(levels=SSL),
            "lab-cpu-1", "clock is 3600 s behind the master's", "synchronise", id="clock",
        ),
        pytest.param(
            {"lab-cpu-1": {"told": "", "address": ""}}, _to_executor(**CLOSED),
            "lab-cpu-1", "told nobody an address", "roost logs lab-cpu-1", id="no daemon",
        ),
        pytest.param(
            {}, _to_executor(mtu=1400, levels=SSL),
            "lab-master, lab-submit → lab-cpu-1", "1500 bytes get lost .*none larger than 1400",
            "lower the MTU", id="MTU",
        ),
        pytest.param(
            {}, {("lab-cpu-1", "lab-master"): {"levels": {
                "READ": "ALLOW", "ADVERTISE_STARTD": "DENIED as exec-lab-cpu-1@lab.internal"}}},
            "lab-cpu-1 → lab-master", "as exec-lab-cpu-1@lab.internal.* let it ADVERTISE_STARTD",
            "revoked", id="denied",
        ),
        pytest.param(
            {}, {("lab-cpu-1", "lab-master"): {"levels": {"READ": "no answer within 25 s"}}},
            "lab-cpu-1 → lab-master", "does not let it READ: no answer", "roost logs lab-master",
            id="no answer",
        ),
    ],
)  # fmt: skip
def test_the_cause(
    places: dict[str, Any], pairs: dict[tuple[str, str], Any], where: str, cause: str, fix: str
) -> None:
    """One error, with what to do; what follows from it is not said again."""
    errors = [finding for finding in _judged(places, pairs) if finding.severity == "error"]
    assert [finding.where for finding in errors] == [where]
    assert re.search(cause, errors[0].what)
    assert fix in errors[0].advice


@pytest.mark.parametrize(
    ("places", "pairs", "cause"),
    [
        pytest.param({"lab-cpu-1": {"addresses": {"10.0.0.4": 1300}}}, {},
                     "takes 1300 bytes at a time (MTU), the master's 1500", id="MTU of one end"),
        pytest.param({"lab-cpu-1": {"off": 30.0}}, {}, "clock is 30 s ahead", id="clock"),
        pytest.param({}, {("lab-cpu-1", "lab-master"): {"admit": "timeout"}},
                     "port 9619 of the master is dropped by a firewall", id="9619"),
        pytest.param({}, {("lab-cpu-1", "lab-master"): {"name_seconds": 20.0}},
                     "it took 20 s to look up lab-master", id="dead resolver"),
        pytest.param({}, {("lab-cpu-1", "lab-master"): {"names": ("10.0.0.2", "10.7.7.7")}},
                     "several addresses there, and 10.7.7.7 is not", id="two addresses"),
        pytest.param({}, {("lab-cpu-1", "lab-submit"): {"names": ("10.7.7.7",)}},
                     "the name lab-submit is 10.7.7.7 there", id="a name that nobody looks up"),
        pytest.param({}, {("lab-master", "lab-cpu-1"): CLOSED | {"ping": 0.3}},
                     "a firewall drops it", id="the master need not call executors"),
    ],
)  # fmt: skip
def test_what_does_no_harm_yet_is_a_warning(
    places: dict[str, Any], pairs: dict[tuple[str, str], Any], cause: str
) -> None:
    (finding,) = _judged(places, pairs)
    assert finding.severity == "warning"
    assert cause in finding.what


def test_behind_nat_at_an_address_that_somebody_else_has_here() -> None:
    """Who answers there is the wrong one; that is no failure of certificates."""
    (error,) = _judged({"lab-cpu-1": {"seen": "10.0.0.99"}}, _to_executor(levels=SSL))
    assert "behind NAT" in error.what


def test_a_node_behind_nat_with_ccb_is_well() -> None:
    told = "<192.168.1.4:9618?CCBID=10.0.0.2:9618%3falias%3dlab-master#3>"
    assert _judged({"lab-cpu-1": {"told": told}}, _to_executor(port="by CCB")) == ()


def test_a_name_that_only_this_node_uses_may_be_unknown() -> None:
    assert _judged({}, {("lab-submit", "lab-cpu-1"): {"names": (), "name_error": "no"}}) == ()


def test_a_node_that_did_not_answer_is_named() -> None:
    (finding,) = judge({"lab-master": _place("lab-master")}, (), {"lab-submit": "it is exited"})
    assert (finding.severity, finding.where) == ("error", "lab-submit")
    assert "it is exited" in finding.what
