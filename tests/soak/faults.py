"""What each fault does to a pool, and what undoes it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from roost import Pool, PoolSpec, RoostError
from roost._run import Completed, run
from soak.schedule import WHOLE_POOL, Kind, Strike

#: Seconds that the engine may take for one thing.
_PATIENCE: Final = 120.0
#: Seconds that the jobs on an executor that is drained may take: more than any of them lasts.
_DRAINED_WITHIN: Final = 300
#: Seconds within which the pool must be whole again once all faults have ended.
HEALED_WITHIN: Final = 420.0

#: Sends the signal $1 to the oldest process called $2; a kernel keeps 15 letters of a name.
_SIGNAL: Final = """
cd /proc || exit
for pid in $(ls -d [0-9]* | sort -n); do
  [ "$(cat "$pid/comm" 2>/dev/null)" = "$2" ] && exec kill -s "$1" "$pid"
done
echo "no $2 runs" >&2; exit 1
"""


class Missed(Exception):
    """A fault had nothing to strike."""


@dataclass
class Hands:
    """What a fault acts with: the engine's own command, and the pool."""

    pool: Pool
    spec: PoolSpec
    """The pool as it should be."""
    logs: Path
    """Where the last words of containers go that are removed."""
    tell: Callable[[str], None] = print
    _one: threading.Lock = field(default_factory=threading.Lock)
    """Two changes of a pool at once are not what is tested."""
    _closed: bool = False

    def container(self, node: str) -> str:
        return f"{self.pool.name}-{node}"

    def engine(self, *argv: str, timeout: float = _PATIENCE) -> Completed:
        return run([self.pool.engine.name, *argv], timeout=timeout)

    def strike(self, *argv: str) -> None:
        """Do it; raises Missed if the engine cannot."""
        done = self.engine(*argv)
        if done.status != 0:
            raise Missed((done.stderr or done.text).strip().splitlines()[-1][:200])

    def inside(self, node: str, *argv: str, timeout: float = _PATIENCE) -> Completed:
        return self.engine("exec", self.container(node), *argv, timeout=timeout)

    def signal(self, name: str, strike: Strike) -> None:
        """Send a signal to one daemon inside a node."""
        script = ("sh", "-c", _SIGNAL, "sh", name, strike.daemon[:15])
        done = self.inside(strike.node, *script)
        if done.status != 0:
            raise Missed((done.stderr or done.text).strip().splitlines()[-1][:200])

    def keep_log(self, node: str) -> None:
        """Save what a container has said, before it is removed."""
        name = self.container(node)
        done = self.engine("logs", name)
        with (self.logs / f"{node}.log").open("ab") as file:
            file.write(done.stdout + done.stderr.encode())

    def up(self) -> None:
        """`roost up`, as the pool was asked for."""
        with self._changing():
            Pool.up(self.spec)

    def up_again(self) -> None:
        """`roost up` until it is done: another fault may be in its way. Raises its last error."""
        until = time.monotonic() + _PATIENCE
        while True:
            try:
                return self.up()
            except RoostError as error:
                if time.monotonic() > until:
                    raise
                self.tell(f"roost up: {error}")
                time.sleep(2)

    def scale(self, change: int) -> None:
        """`roost scale`, by so many more or fewer than the pool should have."""
        with self._changing():
            self.pool.scale(self.spec.executors + change)

    @contextmanager
    def _changing(self) -> Iterator[None]:
        with self._one:
            if self._closed:
                raise Missed("the soak has ended")
            yield

    def close(self) -> None:
        """Make and scale nothing more; returns once nobody does, or after a while."""
        self._closed = True
        if self._one.acquire(timeout=_PATIENCE):
            self._one.release()

    def healthy(self, node: str) -> bool:
        """Whether the node says so itself."""
        return self.inside(node, "roost-node", "health").status == 0

    def unhand(self) -> None:
        """End whatever a fault left behind on a container: no pause, no missing network."""
        for node in self.pool.observe().nodes:
            where = "{{.State.Paused}} {{len .NetworkSettings.Networks}}"
            done = self.engine("inspect", "--format", where, node.name)
            words = done.text.split()
            if done.status == 0 and words[0] == "true":
                self.engine("unpause", node.name)
            if done.status == 0 and words[1] == "0":
                self.engine("network", "connect", self.pool.name, node.name)

    def heal(self) -> int:
        """Make the pool whole: how often `roost up` had to be said. Raises the last RoostError."""
        until = time.monotonic() + HEALED_WITHIN
        tries = 0
        while True:
            tries += 1
            self.unhand()
            try:
                self.up()
                return tries
            except RoostError as error:
                if time.monotonic() > until:
                    raise
                self.tell(f"roost up: {error}")
                time.sleep(2)


Act = Callable[[Hands, Strike], None]


@dataclass(frozen=True)
class Fault:
    """A kind of fault, how it begins and how it ends."""

    kind: Kind
    begin: Act
    end: Act
    excuses: bool = True
    """Whether a job on its victim may run again because of it."""


def _engine(*words: str) -> Act:
    """A command of the engine on the victim."""

    def act(hands: Hands, strike: Strike) -> None:
        hands.strike(*words, hands.container(strike.node))

    return act


def _network(word: str) -> Act:
    def act(hands: Hands, strike: Strike) -> None:
        hands.strike("network", word, hands.pool.name, hands.container(strike.node))

    return act


def _signal(name: str) -> Act:
    def act(hands: Hands, strike: Strike) -> None:
        hands.signal(name, strike)

    return act


def _scale(change: int) -> Act:
    def act(hands: Hands, _strike: Strike) -> None:
        hands.scale(change)

    return act


def _up(hands: Hands, _strike: Strike) -> None:
    hands.up()


def _up_again(hands: Hands, _strike: Strike) -> None:
    hands.up_again()


def _remove(hands: Hands, strike: Strike) -> None:
    hands.keep_log(strike.node)
    hands.strike("rm", "--force", "--volumes", hands.container(strike.node))


def _drain(hands: Hands, strike: Strike) -> None:
    limit = ("--limit", str(_DRAINED_WITHIN))
    done = hands.inside(
        strike.node, "roost-node", "drain", *limit, timeout=_DRAINED_WITHIN + _PATIENCE
    )
    if done.status != 0:
        _undrain(hands, strike)
        raise Missed((done.stderr or done.text).strip()[-200:])


def _undrain(hands: Hands, strike: Strike) -> None:
    hands.inside(strike.node, "roost-node", "drain", "--cancel")


def _nothing(_hands: Hands, _strike: Strike) -> None:
    """What ends by itself."""


_NODES: Final = {"execute": ("",), "submit": ("",), "master": ("",)}
#: condor_master is in each; its end is the node's end, and the engine starts that again.
_DAEMONS: Final = {
    "execute": ("condor_startd", "condor_starter", "condor_master"),
    "submit": ("condor_schedd", "condor_shadow", "condor_master"),
    "master": ("condor_collector", "condor_negotiator", "condor_master"),
}
_WHOLE: Final = {WHOLE_POOL: ("",)}

FAULTS: Final[Mapping[str, Fault]] = {
    fault.kind.name: fault
    for fault in (
        # the engine does not start again what its user has killed
        Fault(Kind("kill", _NODES), _engine("kill"), _engine("start")),
        Fault(Kind("kill-late", _NODES, (5, 20)), _engine("kill"), _engine("start")),
        Fault(Kind("remove", _NODES, (0, 10)), _remove, _up_again),
        Fault(Kind("stop", _NODES, (0, 10)), _engine("stop"), _engine("start")),
        Fault(Kind("cut", _NODES, (5, 40)), _network("disconnect"), _network("connect")),
        Fault(Kind("pause", _NODES, (5, 30)), _engine("pause"), _engine("unpause")),
        Fault(Kind("crash", _DAEMONS), _signal("KILL"), _nothing),
        Fault(Kind("freeze", _DAEMONS, (2, 20)), _signal("STOP"), _signal("CONT")),
        Fault(Kind("drain", {"execute": ("",)}, (0, 10)), _drain, _undrain, excuses=False),
        Fault(Kind("scale", _WHOLE, (10, 20)), _scale(-1), _scale(0), excuses=False),
        Fault(Kind("up", _WHOLE), _up, _nothing, excuses=False),
    )
}
