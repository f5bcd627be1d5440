"""plan and diff, by values: what must be made, what must go, and that nothing else is touched."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roost.confine import MASTER_MEMORY
from roost.data import Bind, Rclone
from roost.plan import (
    DAEMONS_MEMORY,
    Drain,
    Ensure,
    Item,
    Keyless,
    Node,
    NodeState,
    Observed,
    ObservedNode,
    Plan,
    Ref,
    Retire,
    Step,
    Volume,
    bound,
    diff,
    everything,
    node_name,
    plan,
)
from roost.security import Secret
from roost.spec import Execute, HTCondor, Master, Network, PoolSpec, Security, Submit
from roost_node.vocab import EXTRA_CONFIG, LABEL_POOL, LABEL_SPEC, SPOOL_DIR, STATE_DIR, Role


class FakeKeys:
    """Credentials that differ from one call to the next, as real ones do."""

    def __init__(self) -> None:
        self.calls = 0

    def node_files(self, role: Role, node: str) -> Mapping[str, Secret]:
        self.calls += 1
        return {"node.key": Secret(f"{role} {node} {self.calls}".encode())}


KEYS = FakeKeys()


def planned(spec: PoolSpec, standing: Collection[str] = ()) -> Plan:
    return plan(spec, KEYS, standing=standing)


def observed(wanted: Plan, state: NodeState = "running") -> Observed:
    """What an engine holds after `wanted` was made."""
    return Observed(
        wanted.pool,
        tuple(network.name for network in wanted.networks),
        tuple(volume.name for volume in wanted.volumes),
        tuple(as_observed(node, state) for node in wanted.nodes),
    )


def as_observed(node: Node, state: NodeState = "running") -> ObservedNode:
    spec = node.labels[LABEL_SPEC]
    return ObservedNode(
        node.name, node.role, node.group, node.image, spec, state, "healthy",
        networks=(node.network, "990f7444f9af"),
    )  # fmt: skip


def after(steps: tuple[Step, ...], before: Observed) -> Observed:
    """What an engine holds after `steps`. Fails where one needs what is not there."""
    networks, volumes = set(before.networks), set(before.volumes)
    nodes = {node.name: node for node in before.nodes}
    for step in steps:
        if isinstance(step, Retire):
            for ref in step.refs:
                if ref.kind == "node":
                    del nodes[ref.name]
                else:
                    (networks if ref.kind == "network" else volumes).remove(ref.name)
            continue
        if isinstance(step, Drain):
            assert all(nodes[ref.name].role == "execute" for ref in step.refs)
            continue
        item = step.item
        if isinstance(item, Node):
            there = nodes.get(item.name)
            assert there is None or (there.spec == item.labels[LABEL_SPEC])
            nodes[item.name] = as_observed(item)
        elif isinstance(item, Volume):
            volumes.add(item.name)
        else:
            networks.add(item.name)
    return Observed(before.pool, tuple(networks), tuple(volumes), tuple(nodes.values()))


def pool(**groups: int) -> PoolSpec:
    return PoolSpec(
        name="p", execute=tuple(Execute(name=name, count=count) for name, count in groups.items())
    )


def ensured(steps: tuple[Step, ...]) -> list[str]:
    return [step.item.name for step in steps if isinstance(step, Ensure)]


def retired(steps: tuple[Step, ...]) -> list[str]:
    return [ref.name for step in steps if isinstance(step, Retire) for ref in step.refs]


def test_a_plan() -> None:
    wanted = planned(
        PoolSpec(
            name="p",
            submit=Submit(users=("john", "mary"), memory=2**30),
            execute=(Execute(name="cpu", count=2, cpus=0.5, memory=2**29), Execute(name="big")),
        )
    )
    assert [(node.name, node.args) for node in wanted.nodes] == [
        ("p-master", ("-m",)),
        ("p-submit", ("-s", "p-master", "-u", "john", "-u", "mary", "--lease", "60")),
        ("p-cpu-1", ("-e", "p-master", "--cpus", "0.5", "--memory", "512", "--vacate", "20")),
        ("p-cpu-2", ("-e", "p-master", "--cpus", "0.5", "--memory", "512", "--vacate", "20")),
        ("p-big-1", ("-e", "p-master", "--cpus", "1", "--memory", "1024", "--vacate", "20")),
    ]
    master, submit, cpu = wanted.nodes[:3]
    assert (master.cpus, master.memory, submit.memory) == (None, MASTER_MEMORY, 2**30)
    assert (cpu.cpus, cpu.group, cpu.role) == (0.5, "cpu", "execute")
    assert cpu.memory == 2**29 + DAEMONS_MEMORY
    assert [(m.volume, m.path) for m in master.mounts] == [("p-state", STATE_DIR)]
    assert [(m.volume, m.path) for m in submit.mounts] == [
        ("p-spool", SPOOL_DIR),
        ("p-home", "/home"),
    ]
    assert {node.network for node in wanted.nodes} == {"p"}
    assert [network.name for network in wanted.networks] == ["p"]
    labelled: tuple[Item, ...] = (*wanted.networks, *wanted.volumes, *wanted.nodes)
    assert all(item.labels[LABEL_POOL] == "p" for item in labelled)


def test_two_masters_know_each_other_and_every_node_knows_both() -> None:
    two = planned(PoolSpec(name="lab", master=Master(count=2)))
    args = {node.name: node.args for node in two.nodes}
    assert args["lab-master"] == ("-m", "--peer", "lab-master-2")
    assert args["lab-master-2"] == ("-m", "--peer", "lab-master")
    assert args["lab-submit"][:2] == ("-s", "lab-master,lab-master-2")
    assert args["lab-execute-1"][:2] == ("-e", "lab-master,lab-master-2")
    assert [node.name for node in two.nodes if node.mounts] == ["lab-master", "lab-submit"]


def test_a_second_master_makes_only_the_first_anew_and_so_does_its_end() -> None:
    one, two = (planned(PoolSpec(name="lab", master=Master(count=count))) for count in (1, 2))
    assert kinds(diff(two, observed(one))) == [
        "retire lab-master", "ensure lab-master", "ensure lab-master-2",
    ]  # fmt: skip
    assert kinds(diff(one, observed(two))) == [
        "retire lab-master-2", "retire lab-master", "ensure lab-master",
    ]  # fmt: skip


def kinds(steps: tuple[Step, ...]) -> list[str]:
    """Each step in two words."""
    return [
        f"ensure {step.item.name}" if isinstance(step, Ensure)
        else f"retire {' '.join(ref.name for ref in step.refs)}"
        for step in steps
    ]  # fmt: skip


def test_configuration_is_delivered_as_a_file_and_stands_in_no_argument() -> None:
    for node in planned(PoolSpec(config="PASSPHRASE = x")).nodes:
        assert node.files[EXTRA_CONFIG].reveal() == b"PASSPHRASE = x"
        assert node.args[-2:] == ("-c", f"{STATE_DIR}/{EXTRA_CONFIG}")
        assert "PASSPHRASE" not in repr(node)


def test_a_network_of_the_users_is_not_the_pools() -> None:
    wanted = planned(PoolSpec(network=Network(name="calinet1")))
    assert wanted.networks == ()
    assert {node.network for node in wanted.nodes} == {"calinet1"}


@pytest.mark.parametrize(
    ("standing", "names"),
    [
        ((), ["p-cpu-1", "p-cpu-2"]),
        (("p-cpu-3",), ["p-cpu-1", "p-cpu-3"]),
        (("p-cpu-2", "p-cpu-7"), ["p-cpu-2", "p-cpu-7"]),
        (("p-cpu-9", "p-cpu-4", "p-cpu-5"), ["p-cpu-4", "p-cpu-5"]),
        (("p-cpu-0", "p-cpu-03", "p-cpu-x", "p-cpu-", "p-cpu-٣", "q-cpu-5", "p-cpu-a-5"),
         ["p-cpu-1", "p-cpu-2"]),
    ],
)  # fmt: skip
def test_executors_that_stand_keep_their_names(standing: tuple[str, ...], names: list[str]) -> None:
    nodes = planned(pool(cpu=2), standing).nodes
    assert [node.name for node in nodes if node.role == "execute"] == names


def test_nothing_there_makes_everything_in_order() -> None:
    wanted = planned(pool(cpu=1))
    steps = diff(wanted, Observed("p"))
    assert ensured(steps) == [
        "p",
        "p-spool",
        "p-home",
        "p-state",
        "p-master",
        "p-submit",
        "p-cpu-1",
    ]
    assert retired(steps) == []


def test_more_executors_are_added_and_fewer_retired() -> None:
    two, four = planned(pool(cpu=2)), planned(pool(cpu=4))
    assert diff(four, observed(two)) == (Ensure(four.nodes[4]), Ensure(four.nodes[5]))
    surplus = (Ref("node", "p-cpu-3"), Ref("node", "p-cpu-4"))
    drain, retire = diff(two, observed(four))
    assert drain == Drain(surplus)
    assert isinstance(retire, Retire)
    assert retire.refs == surplus


def test_a_group_that_is_gone_is_retired_before_another_is_made() -> None:
    steps = diff(planned(pool(cpu=1, gpu=2)), observed(planned(pool(cpu=1, big=2))))
    assert [type(step) for step in steps[:2]] == [Drain, Retire]
    assert retired(steps) == ["p-big-1", "p-big-2"]
    assert ensured(steps) == ["p-gpu-1", "p-gpu-2"]


def test_other_users_make_nothing_anew() -> None:
    before = pool(cpu=2)
    now = before.model_copy(update={"submit": Submit(users=("john", "mary"))})
    assert diff(planned(now), observed(planned(before))) == ()
    (access,) = [node for node in planned(now).nodes if node.role == "submit"]
    assert access.args[2:6] == ("-u", "john", "-u", "mary")


def test_a_pool_that_everybody_may_read_is_another_pool_to_those_that_answer() -> None:
    before = pool(cpu=1)
    now = before.model_copy(update={"security": Security(public_read=True)})
    steps = diff(planned(now), observed(planned(before)))
    assert retired(steps) == ["p-master", "p-submit"]


def test_one_group_changed_leaves_the_other() -> None:
    before = pool(cpu=2, big=1)
    cpu, big = before.execute
    now = before.model_copy(update={"execute": (replace_cpus(cpu, 2.0), big)})
    steps = diff(planned(now), observed(planned(before)))
    assert retired(steps) == ensured(steps) == ["p-cpu-1", "p-cpu-2"]
    assert len(steps) == 4, "the two drain side by side"


def replace_cpus(group: Execute, cpus: float) -> Execute:
    return group.model_copy(update={"cpus": cpus})


@pytest.mark.parametrize(
    "change",
    [{"config": "A = 1"}, {"htcondor": HTCondor(release="forky")}],
    ids=["config", "release"],
)
def test_what_concerns_every_node_makes_every_node_anew(change: dict[str, object]) -> None:
    before = pool(cpu=2)
    wanted = planned(before.model_copy(update=change))
    steps = diff(wanted, observed(planned(before)))
    names = [node.name for node in wanted.nodes]
    assert retired(steps) == ensured(steps) == names


def test_another_network_is_made_first_and_the_unused_one_goes_last() -> None:
    own = pool(cpu=1)
    other = own.model_copy(update={"network": Network(name="calinet1")})
    steps = diff(planned(other), observed(planned(own)))
    assert steps[-1] == Retire((Ref("network", "p"),), "not in the pool file any more")
    assert ensured(steps) == ["p-master", "p-submit", "p-cpu-1"]
    back = diff(planned(own), observed(planned(other)))
    assert ensured(back)[0] == "p"
    assert "p" not in retired(back)


@pytest.mark.parametrize("state", ["created", "exited", "paused"])
def test_a_node_that_stands_still_is_started(state: NodeState) -> None:
    wanted = planned(pool(cpu=1))
    steps = diff(wanted, observed(wanted, state))
    assert ensured(steps) == ["p-master", "p-submit", "p-cpu-1"]
    assert retired(steps) == []


def test_a_node_off_its_network_is_put_on_it_again() -> None:
    wanted = planned(pool(cpu=2))
    there = observed(wanted)
    nodes = (*there.nodes[:2], replace(there.nodes[2], networks=("bridge",)), there.nodes[3])
    steps = diff(wanted, replace(there, nodes=nodes))
    assert (retired(steps), ensured(steps)) == ([], ["p-cpu-1"])


def test_a_network_may_be_called_by_its_id() -> None:
    wanted = planned(PoolSpec.model_validate({"network": {"name": "990f7444f9af"}}))
    there = observed(wanted)
    nodes = tuple(replace(node, networks=("lab", "990f7444f9af")) for node in there.nodes)
    assert diff(wanted, replace(there, nodes=nodes)) == ()


def test_a_dead_node_is_made_anew() -> None:
    wanted = planned(pool(cpu=1))
    there = observed(wanted)
    nodes = (*there.nodes[:2], replace(there.nodes[2], state="dead"))
    steps = diff(wanted, replace(there, nodes=nodes))
    assert retired(steps) == ensured(steps) == ["p-cpu-1"]


def test_a_value_said_or_left_to_the_default_is_the_same() -> None:
    said = PoolSpec.model_validate(
        {"execute": [{"name": "execute", "count": 1, "cpus": 1, "memory": "1GiB"}]}
    )
    assert diff(planned(said), observed(planned(PoolSpec()))) == ()


def test_taking_down_removes_nodes_then_volumes_then_networks() -> None:
    there = observed(planned(pool(cpu=2)))
    steps = everything(there)
    assert retired(steps) == ["p-submit", "p-cpu-1", "p-cpu-2", "p-master", "p-spool", "p-home",
                              "p-state",                              "p"]  # fmt: skip
    assert not after(steps, there)
    assert after(everything(there, keep=["p-spool"]), there).volumes == ("p-spool",)
    assert everything(Observed("p")) == ()


def test_node_names() -> None:
    assert node_name("p", "master") == "p-master"
    assert node_name("p", "cpu", 3) == "p-cpu-3"


SPECS = st.builds(
    PoolSpec,
    name=st.just("p"),
    htcondor=st.builds(HTCondor, release=st.sampled_from(["trixie", "forky"])),
    submit=st.builds(
        Submit, users=st.lists(st.sampled_from(["a", "b", "c"]), min_size=1, unique=True)
    ),
    execute=st.lists(
        st.builds(
            Execute,
            name=st.sampled_from(["cpu", "big", "cpu-1"]),
            count=st.integers(0, 4),
            cpus=st.sampled_from([1.0, 2.0]),
            memory=st.sampled_from([2**30, 2**31]),
        ),
        unique_by=lambda group: group.name,
        max_size=3,
    ),
    network=st.builds(Network, name=st.sampled_from([None, "n1", "n2"])),
    config=st.sampled_from(["", "A = 1"]),
)


@given(SPECS)
def test_no_two_things_have_one_name(spec: PoolSpec) -> None:
    names = [node.name for node in planned(spec).nodes]
    assert len(names) == len(set(names)) == spec.executors + 2


@given(SPECS)
def test_nothing_changed_nothing_to_do(spec: PoolSpec) -> None:
    assert diff(planned(spec), observed(planned(spec))) == ()


@given(SPECS, SPECS)
def test_after_the_steps_nothing_is_left_to_do(before: PoolSpec, now: PoolSpec) -> None:
    wanted, there = planned(now), observed(planned(before))
    reached = after(diff(wanted, there), there)
    assert diff(wanted, reached) == ()
    assert {node.name for node in reached.nodes} == {node.name for node in wanted.nodes}
    assert set(reached.networks) == {network.name for network in wanted.networks}


@given(SPECS, SPECS)
def test_steps_touch_only_what_differs(before: PoolSpec, now: PoolSpec) -> None:
    wanted, there = planned(now), observed(planned(before))
    same = {node.name for node in there.nodes} & {
        node.name
        for node in wanted.nodes
        for old in there.nodes
        if old.name == node.name and old.spec == node.labels[LABEL_SPEC]
    }
    steps = diff(wanted, there)
    assert not same & {*ensured(steps), *retired(steps)}


def test_a_pool_that_grows_wide_makes_no_executor_anew_to_ask_it_less_often() -> None:
    small = PoolSpec(name="p", execute=(Execute(name="cpu", count=3),))
    wide = planned(small.scaled({"cpu": 200}))
    kept = {node.name: node.health_every for node in wide.nodes}
    assert kept["p-cpu-1"] == 60
    assert kept["p-master"] is None
    assert not retired(diff(wide, observed(planned(small))))


@given(SPECS, st.integers(0, 8))
def test_scaling_touches_only_executors_of_the_group(spec: PoolSpec, count: int) -> None:
    if not spec.execute:
        return
    group = spec.execute[0].name
    wanted = planned(spec.scaled({group: count}))
    steps = diff(wanted, observed(planned(spec)))
    touched = {*ensured(steps), *retired(steps)}
    assert all(name.startswith(f"p-{group}-") for name in touched)
    assert len(touched) == abs(count - spec.execute[0].count)


def test_executors_of_a_pool_with_data_may_mount_and_no_others() -> None:
    web = Rclone(type="rclone", backend="http")
    shown = plan(PoolSpec(data={"web": web, "here": Bind(type="bind", path="/srv/x")}), Keyless())
    by_role = {node.role: node for node in shown.nodes}
    assert {role: node.confinement.mounts for role, node in by_role.items()} == {
        "master": False, "submit": False, "execute": True,
    }  # fmt: skip
    for role in ("submit", "execute"):
        assert by_role[role].args[-2:] == ("--data", "/var/lib/roost/data.json")
        assert "web" in by_role[role].files["data.json"].reveal().decode()
    assert "data.json" not in by_role["master"].files
    (bind,) = by_role["execute"].binds
    assert bound(bind) == "/srv/x:/srv/data/here:rw"
    assert not by_role["submit"].binds
    plain = {node.name: node.labels for node in plan(PoolSpec(), Keyless()).nodes}
    assert by_role["master"].labels != plain[by_role["master"].name]  # it has another image
    with_data = PoolSpec(data={"here": Bind(type="bind", path="/srv/x")})
    assert plan(with_data, Keyless()).nodes[0].labels == plain[by_role["master"].name]
