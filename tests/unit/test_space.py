"""When a spool is full, and who is told."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from roost_node import space

MIB = 2**20


def disk(size: int, free: int, inodes: int = 1000, free_inodes: int = 10) -> os.statvfs_result:
    return os.statvfs_result(
        (4096, 4096, size // 4096, free // 4096, free // 4096, inodes, free_inodes, free_inodes,
         0, 255)
    )  # fmt: skip


@pytest.fixture
def stat(monkeypatch: pytest.MonkeyPatch) -> Callable[[os.statvfs_result], None]:
    def set(found: os.statvfs_result) -> None:
        monkeypatch.setattr(os, "statvfs", lambda _path: found)

    return set


@pytest.mark.parametrize(
    ("found", "full"),
    [
        (disk(100 * MIB, 11 * MIB), False),
        (disk(100 * MIB, 9 * MIB), True),
        (disk(100_000 * MIB, 129 * MIB), False),
        (disk(100_000 * MIB, 127 * MIB), True),
        (disk(100 * MIB, 50 * MIB, free_inodes=0), True),
        (disk(100 * MIB, 50 * MIB, inodes=0, free_inodes=0), False),
    ],
)
def test_full(
    stat: Callable[[os.statvfs_result], None], found: os.statvfs_result, full: bool
) -> None:
    stat(found)
    assert space.is_full("/somewhere") is full


def test_no_such_place_is_not_full(tmp_path: Path) -> None:
    assert not space.is_full(str(tmp_path / "none"))


def test_the_reserve_is_there_to_be_used(
    stat: Callable[[os.statvfs_result], None], tmp_path: Path
) -> None:
    spool, conf = tmp_path / "spool", tmp_path / "space.conf"
    spool.mkdir()
    ballast = spool / space.BALLAST
    told: list[bool] = []
    stat(disk(40 * MIB, 20 * MIB))
    watch = space.Watch(str(spool), told.append, str(conf))
    assert ballast.stat().st_size == 2 * MIB
    for free, full in ((3, False), (1, True), (3, True), (3, True), (5, False), (3, False)):
        stat(disk(40 * MIB, free * MIB))
        assert watch.look() is full
        assert f"RoostSpace = {not full}" in conf.read_text()
        assert ballast.exists() is not full
    assert told == [True, False]
