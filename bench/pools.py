"""The two sides: stock HTCondor in containers started by hand, and a pool that roost makes."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from bench.containers import PREFIX, Engine, run_in
from roost import _run
from roost.errors import RoostError

IMAGE = f"{PREFIX}/stock:trixie"
NETWORK = f"{PREFIX}-net"
POOL = f"{PREFIX}-pool"
USER = "user"

#: The same for both sides. Transfer is on, as in every pool without a shared file system.
SHORT = """\
executable = /bin/true
transfer_executable = False
should_transfer_files = YES
log = bench.log
"""
#: With a list of outputs, even an empty one, the starter need not wait 1 s until the clock of the
#: file system ticks: it would have to tell by their times which files are new.
NO_OUTPUTS = 'transfer_output_files = ""\n'

#: Submit until the schedd takes it, wait until all are done; prints when it began, was taken, ended
_SUBMIT = """\
rm -f bench.log; printf '%s\\nqueue %s\\n' "$1" "$2" > bench.sub
until t=$(date +%s.%N); condor_submit -terse bench.sub > bench.out 2>&1; do sleep 0.1; done
echo $t $(date +%s.%N); condor_wait bench.log > bench.out; date +%s.%N
"""

#: Security as on a trusted network: nobody is asked anything. The rest is HTCondor's default.
_BY_HAND = """\
CONDOR_HOST = {master}
UID_DOMAIN = bench
use security:host_based
ALLOW_READ = *
ALLOW_WRITE = *
ALLOW_DAEMON = *
ALLOW_NEGOTIATOR = *
"""
_ROLES = {
    "master": "use ROLE:CentralManager\n",
    "submit": "use ROLE:Submit\n",
    "execute": "use ROLE:Execute\nNUM_CPUS = 1\nMEMORY = 1024\n",
}


@dataclass(frozen=True)
class Side:
    """A running pool: its containers by role."""

    engine: Engine
    roles: Mapping[str, Sequence[str]]
    grow: Callable[[int], None]
    """Start so many further executors; returns when the collector knows them."""

    @property
    def nodes(self) -> list[str]:
        return [node for nodes in self.roles.values() for node in nodes]

    def jobs(self, count: int, what: str = SHORT) -> float:
        """Seconds from submission of so many jobs to the last one's end, by the pool's clock."""
        access = self.roles["submit"][0]
        said = run_in(self.engine, access, _SUBMIT, USER, what.rstrip("\n"), str(count))
        begun, _taken, ended = map(float, said.split())
        return ended - begun


def build(engine: Engine) -> None:
    """The stock image, from Debian's packages."""
    engine("build", "--network", "host", "--tag", IMAGE, str(Path(__file__).parent / "stock"))


def _until_known(engine: Engine, access: str, executors: int) -> None:
    """Return once the collector knows so many executors. Raises RoostError after 3 minutes."""
    until = time.monotonic() + 180
    while len(set(run_in(engine, access, "condor_status -af Machine || :", USER).split())) < (
        executors
    ):
        if time.monotonic() > until:
            raise RoostError(f"not all of {executors} executors were there within 3 minutes")
        time.sleep(0.2)


def _start(engine: Engine, name: str, config: str) -> None:
    """One stock container; its configuration goes in as a file before it starts."""
    script = 'printf "%s" "$0" > /etc/condor/config.d/10-bench.conf; exec condor_master -f'
    engine(
        "run", "--detach", "--init", "--name", name, "--hostname", name, "--network", NETWORK,
        IMAGE, "sh", "-c", script, config,
    )  # fmt: skip


@contextmanager
def _stock(engine: Engine, names: list[str]) -> Iterator[None]:
    """Removes what it finds of these containers, before and after."""
    engine.remove(names)
    if NETWORK not in engine("network", "ls", "--format", "{{.Name}}").split():
        engine("network", "create", NETWORK)
    try:
        yield
    finally:
        engine.remove(names)
        engine("network", "rm", NETWORK)


@contextmanager
def by_hand(engine: Engine, executors: int, further: int) -> Iterator[Side]:
    """The four roles as one starts them by hand, with HTCondor's default intervals."""
    roles = {
        "master": [f"{PREFIX}-cm"],
        "submit": [f"{PREFIX}-ap"],
        "execute": [f"{PREFIX}-ex{i}" for i in range(1, executors + 1)],
    }
    more = [f"{PREFIX}-ex{i}" for i in range(executors + 1, executors + further + 1)]

    def start(role: str, names: Sequence[str]) -> None:
        for name in names:
            _start(engine, name, _BY_HAND.format(master=roles["master"][0]) + _ROLES[role])

    def grow(count: int) -> None:
        start("execute", more[:count])
        _until_known(engine, roles["submit"][0], executors + count)

    with _stock(engine, [*(name for names in roles.values() for name in names), *more]):
        for role, names in roles.items():
            start(role, names)
        yield Side(engine, roles, grow)


@contextmanager
def minicondor(engine: Engine) -> Iterator[Side]:
    """One container with Debian's minicondor configuration, unchanged."""
    name = f"{PREFIX}-mini"
    config = engine("run", "--rm", IMAGE, "cat", "/usr/share/bench/00-minicondor")

    def grow(_count: int) -> None:
        raise RoostError("a minicondor is one machine and stays one")

    with _stock(engine, [name]):
        _start(engine, name, config)
        _until_known(engine, name, 1)
        yield Side(engine, {"submit": [name]}, grow)


@contextmanager
def roosted(engine: Engine, executors: int, cpus: int = 1) -> Iterator[Side]:
    """The same four roles by `roost up`, which returns when a first job has run."""

    def roost(command: str, *options: str) -> None:
        argv = [str(Path(sys.executable).with_name("roost")), "--name", POOL]
        _run.run([*argv, "--engine", engine.program, command, *options], timeout=900).check()

    def grow(count: int) -> None:
        roost("scale", str(executors + count))

    roles = {
        "master": [f"{POOL}-master"],
        "submit": [f"{POOL}-submit"],
        "execute": [f"{POOL}-execute-{i}" for i in range(1, executors + 1)],
    }
    try:
        roost("up", "--executors", str(executors), "--cpus", str(cpus))
        yield Side(engine, roles, grow)
    finally:
        with suppress(RoostError):
            roost("down")
