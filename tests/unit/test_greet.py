"""The access point's first word to the negotiator."""

from __future__ import annotations

from collections.abc import Sequence

from roost_node.greet import greet
from roost_node.health import Answer


def test_it_waits_for_the_negotiator_and_for_the_schedd() -> None:
    negotiators = iter(["", "", "cm", "cm"])
    schedd = iter([1, 0])
    asked: list[str] = []

    def ask(argv: Sequence[str]) -> Answer:
        asked.append(argv[0])
        if argv[0] == "condor_status":
            return Answer(0, next(negotiators))
        return Answer(next(schedd), "")

    assert greet(ask, lambda _seconds: None) == 0
    assert asked.count("condor_reschedule") == 2
    assert asked[:3] == ["condor_status"] * 3, "no word before the negotiator is known"
