"""When a daemon is given up: from condor_master's own words."""

from __future__ import annotations

from roost_node.patience import GIVE_UP_AFTER, STEADY, Patience

END = "11/22/26 19:00:00 The SCHEDD (pid 42) exited with status 4"


def test_a_daemon_that_ends_again_and_again_is_given_up() -> None:
    patience = Patience()
    said = [patience.hear(END, now=10.0 * n) for n in range(GIVE_UP_AFTER)]
    assert not any(said[:-1])
    assert said[-1].startswith(f"the schedd ended {GIVE_UP_AFTER} times in a row")
    assert "status 4" in said[-1]


def test_a_quiet_time_forgives() -> None:
    patience = Patience()
    assert not any(patience.hear(END, now=(STEADY + 1) * n) for n in range(50))


def test_other_daemons_and_good_ends_do_not_count() -> None:
    patience = Patience()
    fine = "The STARTD (pid 7) exited with status 0"
    killed = "The COLLECTOR (pid 7) died due to signal 9 (Killed)"
    for n in range(GIVE_UP_AFTER - 1):
        assert not patience.hear(END, now=float(n))
        assert not patience.hear(killed, now=float(n))
        assert not patience.hear(fine, now=float(n))
    assert not patience.hear("anything else", now=9.0)
    assert "the collector" in patience.hear(killed, now=9.0)


def test_what_a_daemon_lacks_may_come_back() -> None:
    patience = Patience()
    lacking = {"schedd"}
    assert not any(
        patience.hear(END, now=float(n), helpless=lacking.__contains__) for n in range(50)
    )
    lacking.clear()
    assert not patience.hear(END, now=50.0, helpless=lacking.__contains__)
