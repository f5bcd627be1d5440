"""The same command on Podman; a file of its own, because it needs Podman."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from roost_bench import at_home, cycle, fresh, held, taken_down, well

pytestmark = pytest.mark.engine

SCRIPT = Path(__file__).parents[2] / "scripts/podman"


@pytest.fixture(autouse=True)
def podman(image: str, tmp_path: Path) -> Iterator[None]:
    """Podman, set up for this machine, with the image that Docker has."""
    if shutil.which("podman") is None:
        pytest.fail("these tests need Podman (scripts/podman gets it)")
    with at_home(tmp_path / "state"), pytest.MonkeyPatch.context() as patch:
        if "CONTAINERS_CONF" not in os.environ:
            done = subprocess.run([SCRIPT], capture_output=True, text=True, check=True)
            patch.setenv("CONTAINERS_CONF", done.stdout.strip())
        with subprocess.Popen(["docker", "save", image], stdout=subprocess.PIPE) as save:
            subprocess.run(["podman", "load", "--quiet"], stdin=save.stdout,
                           capture_output=True, check=True)  # fmt: skip
        yield


def test_up_submit_down(image: str, tmp_path: Path) -> None:
    assert cycle(tmp_path, "podman").startswith("23.")


def test_an_engine_is_remembered(tmp_path: Path) -> None:
    """What was made on Podman is not looked for on Docker."""
    with taken_down(fresh("podman"), "podman") as name:
        well("up", "--name", name, "--engine", "podman", "--executors", "0")
        assert held(name, "docker") == set()
        assert name in well("status", "--name", name)
        assert well("up", "--name", name).endswith("0 executors, on podman.\n")
