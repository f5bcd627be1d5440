"""What a container was given, from files as the kernel writes them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from roost_node import limits


@pytest.fixture
def meminfo(tmp_path: Path) -> Path:
    path = tmp_path / "meminfo"
    path.write_text("MemTotal:        4194304 kB\nMemFree: 1 kB\n")
    return path


def put(root: Path, name: str, text: str) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_no_cgroup_means_the_machine(tmp_path: Path, meminfo: Path) -> None:
    assert limits.memory(tmp_path, meminfo) == 4096
    assert limits.cpus(tmp_path) == len(os.sched_getaffinity(0))


def test_cgroup_2(tmp_path: Path, meminfo: Path) -> None:
    put(tmp_path, "memory.max", "536870912\n")
    put(tmp_path, "cpu.max", "100000 100000\n")
    assert limits.memory(tmp_path, meminfo) == 512
    assert limits.cpus(tmp_path) == 1


def test_cgroup_2_without_limits(tmp_path: Path, meminfo: Path) -> None:
    put(tmp_path, "memory.max", "max\n")
    put(tmp_path, "cpu.max", "max 100000\n")
    assert limits.memory(tmp_path, meminfo) == 4096
    assert limits.cpus(tmp_path) == len(os.sched_getaffinity(0))


def test_cgroup_1(tmp_path: Path, meminfo: Path) -> None:
    put(tmp_path, "memory/memory.limit_in_bytes", "314572800\n")
    put(tmp_path, "cpu/cpu.cfs_quota_us", "50000\n")
    put(tmp_path, "cpu/cpu.cfs_period_us", "100000\n")
    assert limits.memory(tmp_path, meminfo) == 300
    assert limits.cpus(tmp_path) == 1, "half a CPU still runs one job"


def test_cgroup_1_without_limits(tmp_path: Path, meminfo: Path) -> None:
    put(tmp_path, "memory/memory.limit_in_bytes", "9223372036854771712\n")
    put(tmp_path, "cpu/cpu.cfs_quota_us", "-1\n")
    assert limits.memory(tmp_path, meminfo) == 4096
    assert limits.cpus(tmp_path) == len(os.sched_getaffinity(0))
