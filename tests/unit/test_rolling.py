"""Another release: which nodes go when, and what is left of a failure."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from test_plan import SPECS, after, observed, planned, pool

from roost.fit import made_anew
from roost.plan import Drain, Ensure, Node, Observed, Ref, Step, diff, everything
from roost.rolling import census, headline, mended, moves, stages
from roost.spec import HTCondor, Network, PoolSpec


def on(release: str, **groups: int) -> PoolSpec:
    return pool(**groups).model_copy(update={"htcondor": HTCondor(release=release)})  # type: ignore[arg-type]


def names(steps: tuple[Step, ...]) -> list[str]:
    return [step.item.name for step in steps if isinstance(step, Ensure)]


def drained(steps: tuple[Step, ...]) -> list[str]:
    return [ref.name for step in steps if isinstance(step, Drain) for ref in step.refs]


# --- stages -------------------------------------------------------------------------------------


def test_executors_then_the_access_point_then_the_master() -> None:
    there = observed(planned(on("trixie", cpu=2, big=1)))
    found = stages(planned(on("forky", cpu=2, big=1)), there)
    assert [names(stage) for stage in found] == [
        ["p-cpu-1"], ["p-cpu-2"], ["p-big-1"], ["p-submit"], ["p-master"]
    ]  # fmt: skip
    assert [drained(stage) for stage in found] == [["p-cpu-1"], ["p-cpu-2"], ["p-big-1"], [], []]
    assert all(moves(stage, there) for stage in found)


def test_a_quarter_of_many_executors_at_a_time() -> None:
    there = observed(planned(on("trixie", cpu=9)))
    found = stages(planned(on("forky", cpu=9)), there)
    assert [len(names(stage)) for stage in found] == [2, 2, 2, 2, 1, 1, 1]


def test_what_else_changes_comes_first_and_is_no_part_of_the_rolling() -> None:
    there = observed(planned(on("trixie", cpu=2)))
    first, *rolling = stages(planned(on("forky", cpu=1, big=1)), there)
    assert names(first) == ["p-big-1"]
    assert drained(first) == ["p-cpu-2"]
    assert not moves(first, there)
    assert headline(first, there) == "removing 1 node and making 1 node"
    assert headline(rolling[0], there) == "p-cpu-1 gets forky"
    assert [names(stage) for stage in rolling] == [["p-cpu-1"], ["p-submit"], ["p-master"]]


def test_what_has_the_release_already_is_left_alone() -> None:
    wanted = planned(on("forky", cpu=2))
    there = observed(planned(on("trixie", cpu=2)))
    first, *_ = stages(wanted, there)
    rest = stages(wanted, after(first, there))
    assert [names(stage) for stage in rest] == [["p-cpu-2"], ["p-submit"], ["p-master"]]


def test_an_executor_that_stands_still_is_not_drained() -> None:
    there = observed(planned(on("trixie", cpu=1)), "exited")
    first, *_ = stages(planned(on("forky", cpu=1)), there)
    assert (names(first), drained(first)) == (["p-cpu-1"], [])


def test_another_network_moves_all_at_once() -> None:
    there = observed(planned(on("trixie", cpu=2)))
    wanted = on("forky", cpu=2).model_copy(update={"network": Network(name="n1")})
    (only,) = stages(planned(wanted), there)
    assert only == diff(planned(wanted), there)


def test_another_configuration_is_no_other_release() -> None:
    there = observed(planned(on("trixie", cpu=2)))
    wanted = planned(on("trixie", cpu=2).model_copy(update={"config": "A = 1"}))
    assert stages(wanted, there) == (diff(wanted, there),)
    assert not moves(diff(wanted, there), there)


@given(SPECS, SPECS)
def test_the_stages_together_do_what_diff_does(before: PoolSpec, now: PoolSpec) -> None:
    wanted, reached = planned(now), observed(planned(before))
    for stage in stages(wanted, reached):
        reached = after(stage, reached)
    assert diff(wanted, reached) == ()


@given(SPECS, SPECS)
def test_while_it_rolls_one_executor_of_several_stays(before: PoolSpec, now: PoolSpec) -> None:
    wanted, reached = planned(now), observed(planned(before))
    for stage in stages(wanted, reached):
        executors = {node.name for node in reached.nodes if node.role == "execute"}
        if moves(stage, reached) and {net.name for net in wanted.networks} == set(reached.networks):
            assert len(executors) < 2 or executors - set(drained(stage))
        reached = after(stage, reached)


# --- after a failure ----------------------------------------------------------------------------


def images(nodes: tuple[Node, ...]) -> dict[str, str]:
    return {node.name: node.image.rpartition(":")[2] for node in nodes}


def test_what_was_left_out_comes_back_as_it_was() -> None:
    old, new = planned(on("trixie", cpu=2)), planned(on("forky", cpu=2))
    there = after(stages(new, observed(old))[0], observed(old))
    half = replace(there, nodes=tuple(node for node in there.nodes if node.name != "p-cpu-2"))
    goal = mended(new, old, half, ())
    assert images(goal.nodes) == {
        "p-master": "trixie", "p-submit": "trixie", "p-cpu-1": "forky", "p-cpu-2": "trixie"
    }  # fmt: skip
    assert made_anew(diff(goal, half)) == {"p-cpu-2"}


def test_what_is_doubted_goes_back() -> None:
    old, new = planned(on("trixie", cpu=1)), planned(on("forky", cpu=1))
    there = after(stages(new, observed(old))[0], observed(old))
    assert images(mended(new, old, there, {"p-cpu-1"}).nodes)["p-cpu-1"] == "trixie"
    assert images(mended(new, old, there, ()).nodes)["p-cpu-1"] == "forky"


def test_what_is_new_and_was_made_stays() -> None:
    old, new = planned(on("trixie", cpu=1)), planned(on("forky", cpu=2))
    first = stages(new, observed(old))[0]
    assert names(first) == ["p-cpu-2"]
    goal = mended(new, old, after(first, observed(old)), ())
    assert images(goal.nodes)["p-cpu-2"] == "forky"


def test_census_names_every_node_by_its_image() -> None:
    there = after(
        stages(planned(on("forky", cpu=1)), observed(planned(on("trixie", cpu=1))))[0],
        observed(planned(on("trixie", cpu=1))),
    )
    assert sorted(census(there).split("; ")) == ["forky on p-cpu-1", "trixie on p-master, p-submit"]
    assert census(Observed("p")) == ""


def test_taking_a_pool_down_drains_nothing() -> None:
    steps = everything(observed(planned(on("trixie", cpu=2))))
    assert not drained(steps)
    assert Ref("node", "p-cpu-1") in steps[0].refs  # type: ignore[union-attr]
