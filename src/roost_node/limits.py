"""What the container was given: CPUs, memory and file descriptors, from its cgroup and rlimits."""

from __future__ import annotations

import os
import resource
from pathlib import Path


def _number(path: Path, field: int = 0) -> int | None:
    try:
        word = path.read_text().split()[field]
    except (OSError, IndexError):
        return None
    return int(word) if word.lstrip("-").isdigit() else None


def cpus(cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """Whole CPUs: the container's quota where it has one, else those it may run on."""
    quota, period = _number(cgroup / "cpu.max"), _number(cgroup / "cpu.max", 1)
    if quota is None:
        quota = _number(cgroup / "cpu/cpu.cfs_quota_us")
        period = _number(cgroup / "cpu/cpu.cfs_period_us")
    usable = len(os.sched_getaffinity(0))
    if quota is None or quota <= 0 or not period:
        return usable
    return max(1, min(usable, quota // period))


def memory(cgroup: Path = Path("/sys/fs/cgroup"), meminfo: Path = Path("/proc/meminfo")) -> int:
    """MiB: the container's limit where it has one, else the machine's."""
    total = _number(meminfo, 1) or 0  # "MemTotal:  24690252 kB" is the first line
    limit = _number(cgroup / "memory.max") or _number(cgroup / "memory/memory.limit_in_bytes")
    if limit is None or limit >= total * 1024:
        return total // 1024
    return limit // 2**20


def file_descriptors() -> int:
    """The hard limit. HTCondor's daemons die if a knob asks for more."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return 1_048_576 if hard == resource.RLIM_INFINITY else hard
