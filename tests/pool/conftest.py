"""The engine, the image and containers that are tidied up, for every test on real containers."""

from __future__ import annotations

import subprocess
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from node_bench import Containers, tail

from roost.image.build import build
from roost.image.recipe import ImageSpec


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A test that failed shows what its nodes had said."""
    report = yield
    if report.failed:
        for made in getattr(item, "funcargs", {}).values():
            if isinstance(made, Containers):
                for node in made.nodes:
                    report.sections.append((f"last words of {node.name}", tail(node)))
    return report


@pytest.fixture(scope="session")
def engine_ready() -> None:
    """Docker answers; a run that cannot test says so loudly."""
    done = subprocess.run(["docker", "version"], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.fail(f"these tests need Docker (scripts/engine gets it): {done.stderr.strip()}")


@pytest.fixture(scope="session")
def image(engine_ready: None) -> str:
    """roost/htcondor:trixie, built from this checkout."""
    return build("docker", ImageSpec("trixie")).tag


@pytest.fixture(scope="session")
def image_forky(engine_ready: None) -> str:
    """roost/htcondor:forky, built from this checkout."""
    return build("docker", ImageSpec("forky")).tag


@pytest.fixture(scope="session")
def image_data(engine_ready: None) -> str:
    """roost/htcondor:trixie-rclone-sshfs, built from this checkout."""
    return build("docker", ImageSpec("trixie", extras=("rclone", "sshfs"))).tag


@pytest.fixture(scope="module")
def shared(image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Containers]:
    """Makes containers that a whole module uses."""
    yield from _tidied(image, tmp_path_factory.mktemp("shared"))


@pytest.fixture
def containers(image: str, tmp_path: Path) -> Iterator[Containers]:
    """Makes containers that are gone after the test."""
    yield from _tidied(image, tmp_path)


def _tidied(image: str, directory: Path) -> Iterator[Containers]:
    made = Containers(image, directory)
    try:
        yield made
    finally:
        made.remove()
