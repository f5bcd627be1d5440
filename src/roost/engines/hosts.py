"""Several engines as one: each item is on the host that its plan names, a node's name finds it.

What a host holds is read from its own engine. Where a node is, is remembered while it can be found
there: to ask every host anew for each command would cost a connection each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Protocol, TypeVar

from roost._run import Completed
from roost.engines.base import Engine, EngineInfo, Event
from roost.errors import ImageMissing
from roost.plan import Item, Observed, ObservedNode, Plan, Ref

T = TypeVar("T")


class Host(Engine, Protocol):
    """An engine that can be one of several."""

    def holds(self, ref: Ref) -> bool:
        """Whether it has this, as some pool's."""
        ...


class HostsEngine:
    """The engines of several hosts, by the hosts' names; the first has what belongs to none."""

    def __init__(self, hosts: Mapping[str, Host]) -> None:
        self._hosts = dict(hosts)
        self._first = next(iter(self._hosts.values()))
        self._known: dict[Ref, Host] = {}
        self.name = self._first.name
        self.delivers = self._first.delivers

    def __repr__(self) -> str:
        return f"HostsEngine({', '.join(self._hosts)})"

    # --- what there is ---------------------------------------------------------------------------

    def info(self) -> EngineInfo:
        """The first host's; CPUs and memory of all. Raises EngineUnavailable if one is gone."""
        first, *others = self._each(lambda host: host.info())
        return replace(
            first,
            cpus=first.cpus + sum(info.cpus for info in others),
            memory=first.memory + sum(info.memory for info in others),
            rootless=first.rootless or any(info.rootless for info in others),
        )

    def check(self, plan: Plan) -> None:
        """Raises BadInput, with what to do, for what a host could never hold; nothing is made."""
        self._each(lambda host: host.check(plan))

    def pools(self) -> Sequence[str]:
        """The names of all pools that any host holds anything of, sorted."""
        return sorted({name for names in self._each(lambda host: host.pools()) for name in names})

    def observe(self, pool: str) -> Observed:
        """What all hosts hold of `pool`; each node with its host."""
        found = self._each(lambda host: host.observe(pool))
        nodes: list[ObservedNode] = []
        for (name, host), observed in zip(self._hosts.items(), found, strict=True):
            nodes += [replace(node, host=name) for node in observed.nodes]
            self._known |= {node.ref: host for node in observed.nodes}
        return Observed(
            pool,
            tuple(sorted({name for each in found for name in each.networks})),
            tuple(sorted({name for each in found for name in each.volumes})),
            tuple(nodes),
        )

    def has_image(self, image: str) -> bool:
        """Whether every host has it. Raises ImageMissing where only some have."""
        has = dict(zip(self._hosts, self._each(lambda host: host.has_image(image)), strict=True))
        without = [name for name, there in has.items() if not there]
        if without and any(has.values()):
            raise ImageMissing(
                f"the image {image} is not on {' and '.join(without)}",
                advice=f"bring it there: `docker save {image} | docker --host … load`",
            )
        return not without

    # --- making and removing ---------------------------------------------------------------------

    def ensure(self, item: Item) -> Iterator[Event]:
        """As the item's own host does it."""
        yield from (self._hosts[item.host] if item.host else self._first).ensure(item)

    def retire(self, refs: Sequence[Ref]) -> Iterator[Event]:
        """Host by host; what none of them has is judged by each, as a name that is taken."""
        held = {ref: [host for host in self._hosts.values() if host.holds(ref)] for ref in refs}
        for host in self._hosts.values():
            own = [ref for ref in refs if host in held[ref] or not held[ref]]
            if own:
                yield from host.retire(own)
        for ref in refs:
            self._known.pop(ref, None)

    # --- talking to nodes ------------------------------------------------------------------------

    def logs(self, ref: Ref, *, follow: bool = False, tail: int | None = None) -> Iterator[str]:
        """The node's log lines, the oldest first."""
        yield from self._of(ref).logs(ref, follow=follow, tail=tail)

    def exec(
        self,
        ref: Ref,
        argv: Sequence[str],
        *,
        user: str | None = None,
        stdin: bytes = b"",
        timeout: float | None = None,
    ) -> Completed:
        """Run `argv` in a running node; its status is in the result, not raised."""
        return self._of(ref).exec(ref, argv, user=user, stdin=stdin, timeout=timeout)

    def interactive(
        self, ref: Ref, argv: Sequence[str], *, user: str | None = None, terminal: bool = True
    ) -> list[str]:
        """The command line that runs `argv` in the node, on this process's own input and output."""
        return self._of(ref).interactive(ref, argv, user=user, terminal=terminal)

    def endpoint(self, ref: Ref, port: int) -> str:
        """`host:port` at which this machine reaches the node's port. Raises EngineError if none."""
        return self._of(ref).endpoint(ref, port)

    # --- inside ----------------------------------------------------------------------------------

    def _each(self, ask: Callable[[Host], T]) -> list[T]:
        """The answers of all hosts, in their order, asked side by side."""
        with ThreadPoolExecutor(len(self._hosts)) as workers:
            return list(workers.map(ask, self._hosts.values()))

    def _of(self, ref: Ref) -> Host:
        """The host that has it; the first, which will say so, if none has."""
        if ref not in self._known:
            for host in self._hosts.values():
                if host.holds(ref):
                    self._known[ref] = host
                    break
        return self._known.get(ref, self._first)
