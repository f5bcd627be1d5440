"""Why a node is not healthy, from what HTCondor's tools say."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from roost_node import space
from roost_node.health import Answer, Ask, processes, stands_by, why_dead, why_not
from roost_node.vocab import SPOOL_FULL, Role


def condor(**answers: Answer) -> Ask:
    """HTCondor's tools, by their names with `_` for what begins them."""

    def ask(argv: Sequence[str]) -> Answer:
        return answers[argv[0].removeprefix("condor_")]

    return ask


FINE = Answer(0, "there\n")


@pytest.mark.parametrize("role", ["master", "submit", "execute"])
def test_healthy(role: Role) -> None:
    assert why_not(role, "n1", "cm", condor(status=FINE, q=FINE)) == ""


def test_a_full_spool_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(space, "is_full", lambda path: path == "/s")
    broken = condor(status=Answer(1, "", "no route"))
    assert why_not("submit", "n1", "cm", broken, spool="/s") == SPOOL_FULL
    assert "does not answer" in why_not("submit", "n1", "cm", broken, spool="/t")


@pytest.mark.parametrize("role", ["master", "submit", "execute"])
def test_a_collector_that_does_not_answer(role: Role) -> None:
    sentence = why_not(role, "n1", "cm", condor(status=Answer(1, "", "noise\nError: no route")))
    assert "does not answer: Error: no route" in sentence


@pytest.mark.parametrize(
    ("role", "sentence"),
    [
        ("master", "the collector knows no negotiator yet"),
        ("submit", "no ad of this node's schedd"),
        ("execute", "no ad of this node's startd"),
    ],
)
def test_an_ad_that_is_missing(role: Role, sentence: str) -> None:
    assert sentence in why_not(role, "n1", "cm", condor(status=Answer(0, "\n")))


def test_a_schedd_that_does_not_answer() -> None:
    asked = condor(status=FINE, q=Answer(1, "", "Failed to connect"))
    assert why_not("submit", "n1", "cm", asked) == "the schedd does not answer: Failed to connect"


def test_the_ad_must_be_this_nodes_own() -> None:
    asked: list[Sequence[str]] = []

    def ask(argv: Sequence[str]) -> Answer:
        asked.append(argv)
        return FINE

    why_not("execute", "n1", "cm", ask)
    assert 'Machine =?= "n1"' in asked[0]


ACTIVE = frozenset(("condor_had", "condor_replicat", "condor_negotiat", "condor_collecto"))


def test_of_two_masters_one_stands_by() -> None:
    waiting = ACTIVE - {"condor_negotiat"}
    for there in (ACTIVE, waiting):
        found = why_not("master", "cm", "cm,cm2", condor(status=FINE), running=there.copy)
        assert found == ""
    assert stands_by("master", "cm,cm2", lambda: waiting)
    assert not stands_by("master", "cm,cm2", lambda: ACTIVE)
    assert not stands_by("master", "cm", lambda: waiting)
    assert not stands_by("execute", "cm,cm2", frozenset)


@pytest.mark.parametrize("daemon", ["condor_had", "condor_replication"])
def test_a_master_that_cannot_take_over_is_not_healthy(daemon: str) -> None:
    sentence = why_not(
        "master", "cm", "cm,cm2", condor(status=FINE), running=lambda: ACTIVE - {daemon[:15]}
    )
    assert sentence == f"{daemon} does not run: this node cannot take the other master's place"


def test_one_of_two_masters_asks_its_own_collector() -> None:
    asked: list[Sequence[str]] = []

    def ask(argv: Sequence[str]) -> Answer:
        asked.append(argv)
        return FINE

    why_not("master", "cm2", "cm2,cm", ask, running=lambda: ACTIVE)
    assert "<127.0.0.1:9618?alias=cm2>" in asked[0]


def test_processes_are_named_as_the_kernel_names_them() -> None:
    own = Path("/proc/self/comm").read_text().strip()
    assert own in processes()


def test_only_a_node_whose_payload_has_ended_is_dead(tmp_path: Path) -> None:
    supervised = tmp_path / "supervisord.pid"
    # It waits for its identity, or for its master: a new start would not help.
    assert why_dead(lambda: ["python3"], supervised=str(supervised)) == ""
    supervised.touch()
    assert why_dead(lambda: ["python3", "condor_master"], supervised=str(supervised)) == ""
    assert "has ended" in why_dead(lambda: ["python3"], supervised=str(supervised))
