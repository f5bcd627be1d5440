"""The same command with the other release: HTCondor 25."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from roost_bench import at_home, cycle

pytestmark = pytest.mark.engine


@pytest.fixture(autouse=True)
def home(tmp_path: Path) -> Iterator[None]:
    with at_home(tmp_path / "state"):
        yield


def test_up_submit_down(image_forky: str, tmp_path: Path) -> None:
    assert cycle(tmp_path, "docker", "--release", "forky").startswith("25.")
