"""A soak's schedule: the same for the same seed, and within what was asked for."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from soak.__main__ import arguments, main
from soak.faults import FAULTS
from soak.run import NODES
from soak.schedule import WHOLE_POOL, Kind, Schedule, schedule

KINDS = [fault.kind for fault in FAULTS.values()]


def made(seed: int, minutes: float = 5.0) -> Schedule:
    return schedule(seed, minutes, KINDS, NODES)


def test_a_seed_is_a_schedule() -> None:
    assert made(7) == made(7)
    assert made(7).strikes != made(8).strikes
    assert made(7).batches != made(8).batches


def test_one_seed_s_schedule_stays_the_same_from_run_to_run() -> None:
    """Not only within a process: a seed that a failed run printed must do the same again."""
    kinds = [
        Kind("kill", {"submit": ("",), "master": ("",)}),
        Kind("cut", {"execute": ("",)}, (5, 40)),
    ]
    plan = schedule(7, 1, kinds, NODES)
    assert [(each.at, str(each)) for each in plan.strikes] == [
        (12.0, "cut execute-4 for 12 s"),
        (38.7, "kill submit"),
        (54.7, "kill master"),
    ]
    assert [(each.at, each.user, each.kind) for each in plan.batches[:3]] == [
        (0.0, "alice", "long"),
        (2.2, "bob", "quick"),
        (7.0, "alice", "long"),
    ]


@settings(deadline=None)
@given(st.integers(), st.floats(0.5, 10))
def test_everything_is_within_its_bounds(seed: int, minutes: float) -> None:
    plan = made(seed, minutes)
    known = {WHOLE_POOL, *(node for nodes in NODES.values() for node in nodes)}
    for strike in plan.strikes:
        kind = FAULTS[strike.kind].kind
        role = strike.node.split("-")[0]
        assert strike.node in known
        assert strike.daemon in kind.targets[role]
        assert kind.seconds[0] <= strike.seconds <= kind.seconds[1]
        assert 0 < strike.at < minutes * 60 + 3
    assert [each.number for each in plan.strikes] == list(range(1, len(plan.strikes) + 1))
    assert all(0 <= batch.at <= minutes * 60 + 0.1 for batch in plan.batches)
    ids = [job.id for job in plan.jobs]
    assert len(ids) == len(set(ids))


def test_jobs_and_faults_do_not_change_each_other() -> None:
    fewer = schedule(7, 5, KINDS[:1], NODES)
    assert fewer.batches == made(7).batches
    assert schedule(7, 5, [], NODES).strikes == ()


def test_an_hour_strikes_everything_everywhere() -> None:
    hit = {(each.kind, each.node.split("-")[0], each.daemon) for each in made(1, 60).strikes}
    assert hit == {
        (kind.name, role, daemon)
        for kind in KINDS
        for role, daemons in kind.targets.items()
        for daemon in daemons
    }
    kinds = {batch.kind for batch in made(1, 60).batches}
    assert kinds == {"quick", "array", "failing", "input", "long"}


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--minutes", "x"], "argument --minutes: 'x' is not a number from 0.5 to 1440"),
        (["--minutes", "0"], "argument --minutes: '0' is not a number from 0.5 to 1440"),
        (["--minutes", "nan"], "argument --minutes: 'nan' is not a number from 0.5 to 1440"),
        (["--seed", "1.5"], "argument --seed: '1.5' is not a whole number"),
        (["--faults", "kill,flood"], "argument --faults: there is no fault 'flood'; there are "),
        (["--engine", "lxc"], "argument --engine: invalid choice: 'lxc'"),
        (["more"], "unrecognized arguments: more"),
    ],
)
def test_bad_arguments(argv: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        arguments(argv)
    assert end.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"soak: {said}")


def test_a_plan_is_printed_and_nothing_done(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--plan", "--seed", "7", "--minutes", "1", "--faults", "cut"]) == 0
    head, *lines = capsys.readouterr().out.splitlines()
    assert head.startswith("seed 7: ")
    assert [line for line in lines if "fault" in line]
    assert {line.split()[3] for line in lines if "fault" in line} == {"cut"}
