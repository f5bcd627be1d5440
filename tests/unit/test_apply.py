"""apply: the order, the events, and that a failure leaves what was there and nothing else."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roost.apply import apply
from roost.engines.base import Event
from roost.engines.fake import FakeEngine
from roost.errors import EngineError, NameTaken
from roost.plan import Ensure, Item, Network, Node, Observed, Ref, Retire, Step, Volume
from roost_node.vocab import LABEL_POOL, LABEL_ROLE, Role

OWNED = {LABEL_POOL: "p"}
NETWORK = Network("p", OWNED)
SPOOL = Volume("p-spool", OWNED)


def node(name: str, role: Role = "execute") -> Node:
    return Node(f"p-{name}", role, role, "image", (), "p", OWNED | {LABEL_ROLE: role})


MASTER, SUBMIT = node("master", "master"), node("submit", "submit")
EXECUTORS = [node(f"execute-{number}") for number in range(1, 7)]
ITEMS: list[Item] = [NETWORK, SPOOL, MASTER, SUBMIT, *EXECUTORS]
STEPS: list[Step] = [Ensure(item) for item in ITEMS]


def test_everything_is_made_and_told_in_order() -> None:
    fake = FakeEngine()
    events = list(apply(STEPS, fake, parallel=1))
    begun = [event.ref.name for event in events if event.kind == "creating"]
    assert begun == [item.name for item in ITEMS]
    assert len(fake.observe("p").nodes) == 8
    assert list(apply(STEPS, fake)) == [
        Event("unchanged", event.ref) for event in events if event.kind == "creating"
    ]


def test_the_master_runs_before_the_others_begin() -> None:
    events = list(apply(STEPS, FakeEngine(), parallel=8))
    started = events.index(Event("started", Ref("node", MASTER.name)))
    others = {SUBMIT.name, *(executor.name for executor in EXECUTORS)}
    assert all(events.index(event) > started for event in events if event.ref.name in others)


def test_retirements_go_where_they_stand() -> None:
    fake = FakeEngine()
    list(apply(STEPS, fake))
    old = Ref("node", EXECUTORS[0].name)
    kinds = [event.kind for event in apply([Retire((old,), "old"), Ensure(EXECUTORS[0])], fake)]
    assert kinds == ["removing", "removed", "creating", "created", "started"]


class Meeting(FakeEngine):
    """Lets nodes start only when `together` of them are being made at the same time."""

    def meet(self, together: int) -> None:
        self.barrier = threading.Barrier(together, timeout=20)
        self.now, self.most, self.lock = 0, 0, threading.Lock()

    def ensure(self, item: Item) -> Iterator[Event]:
        if item.name not in {executor.name for executor in EXECUTORS}:
            yield from super().ensure(item)
            return
        with self.lock:
            self.now += 1
            self.most = max(self.most, self.now)
        self.barrier.wait()
        yield from super().ensure(item)
        with self.lock:
            self.now -= 1


def test_executors_are_made_side_by_side_but_not_more_than_asked() -> None:
    engine = Meeting()
    engine.meet(3)
    list(apply([Ensure(executor) for executor in EXECUTORS], engine, parallel=3))
    assert engine.most == 3
    assert len(engine.observe("p").nodes) == 6


@given(fail_at=st.integers(1, len(ITEMS)), parallel=st.integers(1, 8))
def test_a_failure_leaves_nothing_of_it(fail_at: int, parallel: int) -> None:
    fake = FakeEngine(fail_at=fail_at)
    with pytest.raises(EngineError, match="told to fail"):
        list(apply(STEPS, fake, parallel=parallel))
    assert fake.observe("p") == Observed("p")


@given(fail_at=st.integers(1, len(ITEMS)), there=st.sets(st.sampled_from(range(len(ITEMS)))))
def test_a_failure_leaves_all_that_was_there(fail_at: int, there: set[int]) -> None:
    fake = FakeEngine()
    list(apply([STEPS[index] for index in sorted(there)], fake))
    before = fake.observe("p")
    foreign = ITEMS[fail_at - 1].name
    fake.foreign = {foreign}
    with pytest.raises(NameTaken, match=foreign):
        list(apply(STEPS, fake))
    assert fake.observe("p") == before


def test_without_rollback_what_was_made_stays() -> None:
    fake = FakeEngine(fail_at=4)
    with pytest.raises(EngineError):
        list(apply(STEPS, fake, rollback=False, parallel=1))
    observed = fake.observe("p")
    assert (observed.networks, observed.volumes) == (("p",), ("p-spool",))
    assert [seen.name for seen in observed.nodes] == ["p-master"]


@pytest.mark.parametrize("heard", range(1, 20, 3))
def test_whoever_stops_listening_has_made_nothing(heard: int) -> None:
    fake = FakeEngine()
    events = apply(STEPS, fake)
    for _ in range(heard):
        next(events)
    events.close()
    assert fake.observe("p") == Observed("p")


def test_an_interrupt_is_undone_with_events_and_raised() -> None:
    fake = FakeEngine()
    events = apply(STEPS, fake)
    while next(events) != Event("started", Ref("node", SUBMIT.name)):
        pass
    undone = [events.throw(KeyboardInterrupt())]
    with pytest.raises(KeyboardInterrupt):
        while True:
            undone.append(next(events))
    assert Event("removed", Ref("volume", "p-spool")) in undone
    assert fake.observe("p") == Observed("p")


def test_who_stops_listening_to_the_undoing_does_not_stop_it() -> None:
    fake = FakeEngine()
    events = apply(STEPS, fake)
    while next(events).ref.name != SUBMIT.name:
        pass
    assert events.throw(KeyboardInterrupt()).kind == "removing"
    events.close()
    assert fake.observe("p") == Observed("p")


class Sticky(FakeEngine):
    def retire(self, refs: Sequence[Ref]) -> Iterator[Event]:
        raise EngineError("the volume is in use")


def test_what_cannot_be_undone_is_noted_on_the_original_error() -> None:
    with pytest.raises(EngineError, match="told to fail at p-master") as caught:
        list(apply(STEPS, Sticky(fail_at=3)))
    (note,) = caught.value.__notes__
    assert "p, p-spool" in note
    assert "in use" in note
