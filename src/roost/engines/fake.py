"""An engine in memory: for tests, yours too. It holds items, runs nothing, and fails when told."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from roost._run import Completed
from roost.engines.base import EVERYBODY, EngineInfo, Event, ref_of
from roost.errors import EngineError, ImageMissing, NameTaken
from roost.plan import Health, Item, Node, Observed, ObservedNode, Plan, Ref
from roost.security import Secret
from roost_node.vocab import LABEL_POOL, LABEL_SPEC, Role

#: Node name, argv → what a command in that node leaves behind.
Answers = Callable[[str, Sequence[str]], Completed]


def succeed(_: str, argv: Sequence[str]) -> Completed:
    """The answer to every command unless others are given: status 0, nothing said."""
    return Completed(tuple(argv), 0, b"", "")


@dataclass(frozen=True)
class Call:
    """A command that was run in a node."""

    node: str
    argv: tuple[str, ...]
    user: str | None
    stdin: bytes


@dataclass
class FakeEngine:
    """An Engine whose containers are entries of dictionaries.

    `answers` gives the results of `exec`. The `fail_at`-th call of `ensure`, counted from 1, raises
    EngineError after it has made its item and removed it again. `images` are those that it has; all
    if None. `foreign` are names that something else has.
    """

    answers: Answers = succeed
    fail_at: int | None = None
    images: Collection[str] | None = None
    foreign: Collection[str] = ()
    name: str = "fake"
    delivers: frozenset[Role] = EVERYBODY
    calls: list[Call] = field(default_factory=list)
    """The commands that were run, the oldest first."""

    def __post_init__(self) -> None:
        self._labels: dict[Ref, Mapping[str, str]] = {}
        self._nodes: dict[str, ObservedNode] = {}
        self._files: dict[str, Mapping[str, Secret]] = {}
        self._logs: dict[str, list[str]] = {}
        self._ensured = 0
        self._addresses = 0

    # --- what only the fake has ------------------------------------------------------------------

    def files(self, node: str) -> Mapping[str, Secret]:
        """What was delivered to the node before it started."""
        return self._files[node]

    def say(self, node: str, *lines: str) -> None:
        """Let the node write lines to its log."""
        self._logs[node] += lines

    def end(self, node: str, exit_code: int = 0) -> None:
        """Let the node's process end."""
        self._change(node, state="exited", health="none", exit_code=exit_code, address="")

    def pause(self, node: str) -> None:
        """Let the node stand still."""
        self._change(node, state="paused", health="none", address="")

    def cut(self, node: str) -> None:
        """Take the node off its network."""
        self._change(node, address="", networks=())

    def feel(self, node: str, health: Health) -> None:
        """Set the node's health."""
        self._change(node, health=health)

    def holds(self, ref: Ref) -> bool:
        """Whether it has this, as some pool's."""
        return ref in self._labels

    # --- the protocol ----------------------------------------------------------------------------

    def info(self) -> EngineInfo:
        return EngineInfo(self.name, "1", 8.0, 16 * 2**30, "2", rootless=False)

    def check(self, plan: Plan) -> None:
        """It can hold anything."""

    def pools(self) -> Sequence[str]:
        return sorted({labels[LABEL_POOL] for labels in self._labels.values()})

    def observe(self, pool: str) -> Observed:
        held = sorted(ref.name for ref in self._labels)
        of = {ref for ref, labels in self._labels.items() if labels[LABEL_POOL] == pool}
        return Observed(
            pool,
            tuple(name for name in held if Ref("network", name) in of),
            tuple(name for name in held if Ref("volume", name) in of),
            tuple(self._nodes[name] for name in held if Ref("node", name) in of),
        )

    def has_image(self, image: str) -> bool:
        return self.images is None or image in self.images

    def ensure(self, item: Item) -> Iterator[Event]:
        self._ensured += 1
        fails = self._ensured == self.fail_at
        ref = ref_of(item)
        there = self._labels.get(ref)
        if item.name in self.foreign or (there and there[LABEL_POOL] != item.labels[LABEL_POOL]):
            raise NameTaken(f"the {ref.kind} {ref.name} exists and is not this pool's")
        if there is not None:
            if isinstance(item, Node) and not self._stands(item):
                self._change(item.name, networks=(item.network,))
                self._run(item.name)
                yield Event("started", ref)
            else:
                yield Event("unchanged", ref)
            return
        if isinstance(item, Node) and not self.has_image(item.image):
            raise ImageMissing(f"the image {item.image} is not here")
        complete = False
        try:
            yield Event("creating", ref)
            self._labels[ref] = item.labels
            if isinstance(item, Node):
                self._make(item)
            yield Event("created", ref)
            if fails:
                raise EngineError(f"the fake engine was told to fail at {ref.name}")
            if isinstance(item, Node):
                self._run(item.name)
            complete = True
            if isinstance(item, Node):
                yield Event("started", ref)
        finally:
            if not complete:
                self._forget(ref)

    def retire(self, refs: Sequence[Ref]) -> Iterator[Event]:
        for ref in refs:
            if ref in self._labels:
                yield Event("removing", ref)
                self._forget(ref)
                yield Event("removed", ref)

    def logs(
        self,
        ref: Ref,
        *,
        follow: bool = False,  # noqa: ARG002 - nothing more will come
        tail: int | None = None,
    ) -> Iterator[str]:
        lines = self._logs[self._known(ref).name]
        yield from lines if tail is None else lines[max(0, len(lines) - tail) :]

    def exec(
        self,
        ref: Ref,
        argv: Sequence[str],
        *,
        user: str | None = None,
        stdin: bytes = b"",
        timeout: float | None = None,  # noqa: ARG002 - an answer is there at once
    ) -> Completed:
        if self._known(ref).state != "running":
            raise EngineError(f"the node {ref.name} is not running")
        self.calls.append(Call(ref.name, tuple(argv), user, stdin))
        return self.answers(ref.name, argv)

    def interactive(
        self, ref: Ref, argv: Sequence[str], *, user: str | None = None, terminal: bool = True
    ) -> list[str]:
        flags = ["--tty"] if terminal else []
        flags += ["--user", user] if user else []
        return ["fake", "exec", *flags, ref.name, *argv]

    def endpoint(self, ref: Ref, port: int) -> str:
        address = self._known(ref).address
        if not address:
            raise EngineError(f"{ref.name} has no address now")
        return f"{address}:{port}"

    # --- inside ----------------------------------------------------------------------------------

    def _known(self, ref: Ref) -> ObservedNode:
        if ref.name not in self._nodes:
            raise EngineError(f"there is no node {ref.name}")
        return self._nodes[ref.name]

    def _make(self, node: Node) -> None:
        self._files[node.name] = dict(node.files)
        self._logs[node.name] = []
        self._nodes[node.name] = ObservedNode(
            node.name, node.role, node.group, node.image,
            node.labels.get(LABEL_SPEC, ""), "created", "none", networks=(node.network,),
        )  # fmt: skip

    def _stands(self, node: Node) -> bool:
        there = self._nodes[node.name]
        return there.state == "running" and node.network in there.networks

    def _run(self, node: str) -> None:
        self._addresses += 1
        self._change(
            node, state="running", health="healthy", exit_code=None, started="2026-01-01T00:00:00Z",
            address=f"10.0.{self._addresses // 256}.{self._addresses % 256}",
        )  # fmt: skip

    def _change(self, node: str, **changes: object) -> None:
        self._nodes[node] = replace(self._nodes[node], **changes)  # type: ignore[arg-type]

    def _forget(self, ref: Ref) -> None:
        self._labels.pop(ref, None)
        if ref.kind == "node":
            self._nodes.pop(ref.name, None)
            self._files.pop(ref.name, None)
            self._logs.pop(ref.name, None)
