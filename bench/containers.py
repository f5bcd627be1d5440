"""Containers as the bench sees them: run a command, read CPU time and memory from the cgroup."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from roost import _run

#: Everything that the bench makes begins so; nothing else is ever removed.
PREFIX = "roost-bench"


@dataclass(frozen=True)
class Engine:
    """`docker` or `podman`, by its command line."""

    program: str

    def __call__(self, *argv: str, stdin: bytes = b"") -> str:
        """Run a command of the engine. Raises CommandFailed."""
        return _run.run([self.program, *argv], stdin=stdin, timeout=900).check().text

    def remove(self, names: Iterable[str]) -> None:
        """Remove these containers, and their volumes; a no-op for those that do not exist."""
        there = set(self("ps", "--all", "--format", "{{.Names}}").split())
        if doomed := [name for name in names if name in there]:
            self("rm", "--force", "--volumes", *doomed)


@dataclass(frozen=True)
class Memory:
    """What a container's processes hold, in MiB."""

    own: float
    """Anonymous and kernel memory of its cgroup. Page cache is left out: containers of one image
    share it, so whoever starts first would pay for all."""
    pss: float
    """Sum of the proportional set sizes: what is shared is divided among those who share it."""
    keeper: float
    """Proportional set size of the engine's own process beside the container (shim, conmon)."""


def run_in(engine: Engine, node: str, script: str, user: str, *args: str) -> str:
    """What a shell script writes, run in a container, in the user's home."""
    argv = ["exec", "--interactive", "--user", user, node, "sh", "-euc", f"cd; {script}", "sh"]
    return engine(*argv, *args)


def _cgroup(pid: int, controller: str) -> Path:
    """A process's cgroup of a controller, version 1 or 2."""
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controller in controllers.split(","):
            for mount in (controller, controllers):
                if (found := Path(f"/sys/fs/cgroup/{mount}{path}")).is_dir():
                    return found
        if not controllers and (found := Path(f"/sys/fs/cgroup{path}")).is_dir():
            unified = found
    return unified


def _main_pid(engine: Engine, node: str) -> int:
    return int(engine("inspect", "--format", "{{.State.Pid}}", node))


def cpu_ms(engine: Engine, nodes: Sequence[str]) -> float:
    """CPU time that containers have used until now, in ms."""
    total = 0.0
    for node in nodes:
        where = _cgroup(_main_pid(engine, node), "cpuacct")
        if (usage := where / "cpuacct.usage").is_file():
            total += int(usage.read_text()) / 1e6
        else:
            found = re.search(r"usage_usec (\d+)", (where / "cpu.stat").read_text())
            assert found is not None
            total += int(found[1]) / 1e3
    return total


def memory(engine: Engine, node: str) -> Memory:
    """What a container holds now."""
    where = _cgroup(_main_pid(engine, node), "memory")
    stat = dict(line.split() for line in (where / "memory.stat").read_text().splitlines())
    if "total_rss" in stat:
        own = int(stat["total_rss"]) + int((where / "memory.kmem.usage_in_bytes").read_text())
    else:
        own = int(stat["anon"]) + int(stat["kernel"])
    pss = sum(_pss(pid) for pid in (where / "cgroup.procs").read_text().split())
    status = Path(f"/proc/{_main_pid(engine, node)}/status").read_text()
    parent = re.search(r"^PPid:\s+(\d+)", status, re.M)
    assert parent is not None
    return Memory(own / 2**20, pss, _pss(parent[1]))


def _pss(pid: str) -> float:
    """A process's proportional set size, in MiB."""
    try:
        found = re.search(r"^Pss:\s+(\d+)", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.M)
    except OSError:  # it has just ended
        return 0
    return int(found[1]) / 2**10 if found else 0
