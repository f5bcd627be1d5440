"""Steps × Engine → Events, as they happen; what a failure leaves half-made is removed again."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from itertools import chain, groupby
from queue import SimpleQueue

from roost.drain import Drainer
from roost.engines.base import Engine, Event
from roost.errors import EngineError
from roost.plan import Drain, Ensure, Item, Node, Ref, Retire, Step

Events = Generator[Event, None, None]


def apply(
    steps: Sequence[Step],
    engine: Engine,
    *,
    drainer: Drainer | None = None,
    rollback: bool = True,
    parallel: int = 8,
) -> Events:
    """Do the steps in order; nodes that follow each other go side by side, the master alone first.

    At most `parallel` nodes at once. When a step fails, or the caller stops (an interrupt, or
    closing this generator), exactly what this call had made is removed, newest first, and the
    original error is raised; what could not be removed is in its notes. What was there before,
    volumes above all, is never touched, and what steps retired does not come back; what was drained
    and stands still takes jobs again. Without a `drainer` nothing is drained:
    jobs run again elsewhere.
    """
    made: list[Ref] = []
    drained: list[Ref] = []

    def ensure(item: Item) -> Events:
        events = engine.ensure(item)
        try:
            for event in events:
                if event.kind == "created":
                    made.append(event.ref)
                yield event
        finally:
            if isinstance(events, Generator):
                events.close()

    try:
        for alone, group in groupby(steps, _goes_alone):
            if alone:
                for step in group:
                    match step:
                        case Drain(refs):
                            if drainer is not None:
                                drained += refs
                                yield from drainer.drain(refs)
                        case Retire(refs):
                            yield from engine.retire(refs)
                            drained = [ref for ref in drained if ref not in refs]
                        case Ensure(item):
                            yield from ensure(item)
            else:
                items = [step.item for step in group if isinstance(step, Ensure)]
                yield from _side_by_side(items, ensure, parallel)
    except BaseException as error:
        yield from _put_back(made if rollback else (), drained, engine, drainer, error)
        raise


def _goes_alone(step: Step) -> bool:
    """Whether what follows must wait: for everything but access points and executors."""
    return not (isinstance(step, Ensure) and _waits_for_master(step.item))


def _waits_for_master(item: Item) -> bool:
    return isinstance(item, Node) and item.role != "master"


def _side_by_side(
    items: Sequence[Item], ensure: Callable[[Item], Events], parallel: int
) -> Iterator[Event]:
    """Ensure the items in threads, begun in their order; the first error stops the others."""
    happened: SimpleQueue[Event | BaseException | None] = SimpleQueue()
    halt = threading.Event()

    def work(item: Item) -> None:
        try:
            with closing(ensure(item)) as events:
                # Between two events an item may be left: ensure then removes what it began.
                while not halt.is_set() and (event := next(events, None)) is not None:
                    happened.put(event)
            happened.put(None)
        except BaseException as error:  # noqa: BLE001 - raised again in the caller's thread
            happened.put(error)

    with ThreadPoolExecutor(parallel, thread_name_prefix="roost-apply") as pool:
        try:
            for item in items:
                pool.submit(work, item)
            unfinished = len(items)
            while unfinished:
                match happened.get():
                    case None:
                        unfinished -= 1
                    case BaseException() as error:
                        raise error
                    case event:
                        yield event
        finally:
            halt.set()


def _put_back(
    made: Sequence[Ref],
    drained: Sequence[Ref],
    engine: Engine,
    drainer: Drainer | None,
    cause: BaseException,
) -> Iterator[Event]:
    """Remove what was made, let what was drained work; to the end, even if nobody listens."""
    heard = not isinstance(cause, GeneratorExit)
    resumed = drainer.cancel(drained) if drainer is not None and drained else ()
    try:
        removed = engine.retire(tuple(reversed(made))) if made else ()
        for event in chain(resumed, removed):
            if heard:
                try:
                    yield event
                except GeneratorExit:
                    heard = False
    except EngineError as error:
        names = ", ".join(ref.name for ref in made)
        cause.add_note(f"what was made could not all be removed ({names}): {error}")
