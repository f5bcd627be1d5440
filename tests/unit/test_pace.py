"""The pace of the master, by the size of the pool."""

from __future__ import annotations

from itertools import pairwise

from roost_node.pace import Pace, configuration, health_every, pace


def test_a_small_pool_answers_at_once_and_a_huge_one_as_htcondor_would() -> None:
    assert pace(1).delay == 0
    assert pace(100_000) == Pace(60, 20)


def test_it_only_ever_gets_calmer_as_a_pool_grows() -> None:
    paces = [pace(executors) for executors in range(0, 3000, 10)]
    assert all(a.interval <= b.interval and a.delay <= b.delay for a, b in pairwise(paces))


def test_executors_of_a_large_pool_are_asked_less_often_how_they_are() -> None:
    assert [health_every(count) for count in (1, 20, 21, 100, 101, 1000)] == [
        None, None, 30, 30, 60, 60
    ]  # fmt: skip


def test_the_configuration_is_that_pace() -> None:
    lines = configuration(500).splitlines()
    assert "NEGOTIATOR_INTERVAL = 30" in lines
    assert "NEGOTIATOR_CYCLE_DELAY = 5" in lines
