"""`roost render compose -o DIR`: what it writes, with which modes, and what it leaves alone."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from roost import cli
from roost_node import pki


@pytest.fixture(params=[0o022, 0o077], ids=["umask 022", "umask 077"])
def umask(request: pytest.FixtureRequest) -> Iterator[None]:
    """Compose mounts files with this machine's modes, so whose umask it is must not matter."""
    before = os.umask(request.param)
    yield
    os.umask(before)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.delenv("ROOST_POOL", raising=False)


def modes(directory: Path) -> dict[str, str]:
    return {
        str(path.relative_to(directory)): f"{stat.S_IMODE(path.stat().st_mode):o}"
        for path in [directory, *directory.rglob("*")]
    }


def test_modes(tmp_path: Path, umask: None) -> None:
    out = tmp_path / "out"
    assert cli.main(["render", "compose", "-o", str(out)]) == 0
    assert modes(out) == {
        ".": "700",
        "compose.yaml": "644",
        "secrets": "700",
        "secrets/master": "700",
        "secrets/master/ca.crt": "644",
        "secrets/master/ca.key": "600",
        "secrets/master/node.crt": "644",
        "secrets/master/node.key": "600",
        "secrets/submit": "700",
        "secrets/submit/ca.crt": "644",
        "secrets/submit/node.crt": "644",
        "secrets/submit/node.key": "600",
        "secrets/submit/reader.crt": "644",
        "secrets/submit/reader.key": "644",
    }


def test_credentials_belong_together(tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert cli.main(["render", "compose", "-o", str(out)]) == 0
    master = out / "secrets/master"
    ca = (master / "ca.crt").read_bytes()
    assert pki.fits((master / "ca.key").read_bytes(), ca)
    assert pki.fits((master / "node.key").read_bytes(), (master / "node.crt").read_bytes())
    assert (out / "secrets/submit/ca.crt").read_bytes() == ca


def test_refuses_to_overwrite(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine").write_text("kept")
    assert cli.main(["render", "compose", "-o", str(tmp_path)]) == 2
    assert (tmp_path / "mine").read_text() == "kept"
    assert not (tmp_path / "compose.yaml").exists()
    assert "is not empty" in capsys.readouterr().err
