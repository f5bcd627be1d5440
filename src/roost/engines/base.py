"""What an engine can do, as two protocols; every engine passes tests/contract/test_engine.py."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, Protocol, runtime_checkable

from roost._run import Completed
from roost.plan import Item, Network, Node, Observed, Plan, Ref, Volume
from roost_node.vocab import ROLES, Role

#: A node that was not stopped by somebody comes back, after a failure and after a restart of the
#: engine alike, however often. One that fails for good is seen by its restarts.
RESTART: Final = "unless-stopped"
#: How long a node may take to stop: longer than MachineMaxVacateTime and HTCondor's own end.
STOP_SECONDS: Final = 30
#: What an engine delivers that can put files in a container before it starts.
EVERYBODY: Final[frozenset[Role]] = frozenset(ROLES)


@dataclass(frozen=True)
class Event:
    """One thing that happened to one item, as it happened."""

    kind: Literal[
        "creating", "created", "started", "unchanged", "removing", "removed",
        "waiting", "drained", "resumed",
    ]  # fmt: skip
    ref: Ref
    detail: str = ""


def ref_of(item: Item) -> Ref:
    """What an engine calls the item, once it holds it."""
    match item:
        case Network():
            return Ref("network", item.name)
        case Volume():
            return Ref("volume", item.name)
        case Node():
            return Ref("node", item.name)


@dataclass(frozen=True)
class EngineInfo:
    """An engine that answers."""

    name: str
    version: str
    cpus: float
    """CPUs of the machine it runs containers on."""
    memory: int
    """Its memory in bytes."""
    cgroup: str
    """`1` or `2`; empty if unknown."""
    rootless: bool
    log_driver: str = ""
    """Where it keeps what containers write, in its own words; empty if unknown."""


class Renderer(Protocol):
    """Turns a plan into files that some other tool runs."""

    def render(self, plan: Plan) -> Mapping[str, str]:
        """File name → text; the same plan gives the same text. Holds no secret."""
        ...


class Engine(Protocol):
    """Holds containers. Every method reads the engine itself: nothing is remembered here.

    Each may raise EngineError or one of its kinds.
    """

    name: str
    delivers: frozenset[Role]
    """The roles to whose nodes it delivers an identity; the others make their own and enrol."""

    def info(self) -> EngineInfo:
        """Version and capabilities. Raises EngineUnavailable when it does not answer."""
        ...

    def check(self, plan: Plan) -> None:
        """Raises BadInput, with what to do, for what it could never hold; nothing is made."""
        ...

    def pools(self) -> Sequence[str]:
        """The names of all pools that it holds anything of, sorted."""
        ...

    def observe(self, pool: str) -> Observed:
        """What it holds of `pool`, from labels; empty if nothing."""
        ...

    def has_image(self, image: str) -> bool:
        """Whether `image` is here, without pulling it."""
        ...

    def ensure(self, item: Item) -> Iterator[Event]:
        """Create the item or start it; a no-op (`unchanged`) if it is there already.

        A node that is paused goes on, one that was taken off its network is put on it again.
        A node's files are in place before its process starts. What a failed call had made is
        removed by itself. Raises NameTaken when the name belongs to something else.
        """
        ...

    def retire(self, refs: Sequence[Ref]) -> Iterator[Event]:
        """Stop and remove exactly these, side by side; what is already gone is a no-op."""
        ...

    def logs(self, ref: Ref, *, follow: bool = False, tail: int | None = None) -> Iterator[str]:
        """The node's log lines, the oldest first."""
        ...

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
        ...

    def interactive(
        self, ref: Ref, argv: Sequence[str], *, user: str | None = None, terminal: bool = True
    ) -> list[str]:
        """The command line with which a terminal runs `argv` in the node, or else a pipe."""
        ...

    def endpoint(self, ref: Ref, port: int) -> str:
        """`host:port` at which this machine reaches the node's port. Raises EngineError if none."""
        ...


@runtime_checkable
class Scheduler(Protocol):
    """What an engine has beside Engine if it decides by itself where executors run.

    It names them, too: `ensure` makes one more of a planned executor's group, and its events say
    what that is called.
    """

    def check_change(self, plan: Plan, there: Observed) -> None:
        """Raises BadInput, before anything is touched, for a plan that it cannot make of these."""
        ...
