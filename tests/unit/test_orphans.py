"""Shadows without a schedd end; those that have one, and everything else, live on."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from roost_node import orphans

PROCESSES = {
    1: ("tini", 0),
    20: ("condor_master", 1),
    30: ("condor_schedd", 20),
    31: ("condor_shadow", 30),
    41: ("condor_shadow", 1),
    42: ("condor_shadow", 20),
    43: ("condor_shadow", 29),  # its parent is gone altogether
    44: ("condor_shared_p", 1),
}


@pytest.fixture
def proc(tmp_path: Path) -> str:
    for pid, (name, parent) in PROCESSES.items():
        (tmp_path / str(pid)).mkdir()
        (tmp_path / str(pid) / "comm").write_text(f"{name}\n")
        (tmp_path / str(pid) / "stat").write_text(f"{pid} ({name}) S {parent} 1 1 0\n")
    (tmp_path / "uptime").write_text("1 1\n")
    (tmp_path / "99").mkdir()  # ends while it is looked at
    return str(tmp_path)


def test_shadows_without_a_schedd_are_killed(proc: str, monkeypatch: pytest.MonkeyPatch) -> None:
    killed: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "kill", lambda pid, name: killed.append((pid, name)))
    assert orphans.end(proc) == 3
    assert sorted(killed) == [(41, signal.SIGKILL), (42, signal.SIGKILL), (43, signal.SIGKILL)]


def test_one_that_has_just_ended_is_no_error(proc: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(pid: int, name: int) -> None:
        raise ProcessLookupError

    monkeypatch.setattr(os, "kill", gone)
    assert orphans.end(proc) == 0


@pytest.mark.parametrize(
    ("line", "died"),
    [
        ("11/24/26 02:59:25 The SCHEDD (pid 114) died due to signal 9 (Killed)", True),
        ("11/24/26 02:59:25 The SCHEDD (pid 114) exited with status 44", True),
        ("11/24/26 02:59:25 The SCHEDD (pid 114) exited with status 0", False),
        ("11/24/26 02:59:25 The STARTD (pid 114) died due to signal 9 (Killed)", False),
    ],
)
def test_the_death_of_a_schedd_is_heard(line: str, died: bool) -> None:
    assert orphans.told(line) is died
