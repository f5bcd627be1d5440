"""Every folder here with a pool.yaml and a `verify` is a test: see README.md."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from roost_bench import ROOST, at_home, fresh, taken_down, well

pytestmark = pytest.mark.engine

CASES = sorted(path.parent.name for path in Path(__file__).parent.glob("*/pool.yaml"))


def test_there_are_cases() -> None:
    assert CASES


@pytest.fixture
def home(image: str, tmp_path: Path) -> Iterator[None]:
    with at_home(tmp_path / "state"):
        yield


@pytest.mark.parametrize("case", CASES)
def test_case(case: str, home: None, tmp_path: Path) -> None:
    folder = shutil.copytree(Path(__file__).parent / case, tmp_path / "case")
    with taken_down(fresh(case)) as pool:
        well("up", folder / "pool.yaml", "--name", pool)
        done = subprocess.run(
            [folder / "verify"],
            cwd=folder,
            env=os.environ
            | {"ROOST_POOL": pool, "PATH": f"{Path(ROOST).parent}:{os.environ['PATH']}"},
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            timeout=300, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"verify ended with {done.returncode}:\n{done.stdout}"
