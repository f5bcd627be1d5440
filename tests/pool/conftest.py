"""The engine, the image and containers that are tidied up, for every test on real containers."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Final

import pytest
from node_bench import Containers, tail

from roost.image.build import build
from roost.image.recipe import ImageSpec

# What a shell runs in the background ignores Ctrl-C, and so does all that it starts: `roost`, too.
signal.signal(signal.SIGINT, signal.default_int_handler)

#: The files that take longest: what begins last among several side by side ends last.
LONG: Final = (
    "test_doctor_network.py", "test_upgrade.py", "test_leaving.py", "test_engine.py",
    "test_types.py", "test_roost_up.py", "test_attempts.py", "test_roost_marathon.py",
    "test_hosts.py", "test_access_point.py", "test_sick.py", "test_network.py", "test_onedata.py",
    "test_kill_matrix.py", "test_two_masters.py", "test_python_work.py", "test_roost_jobs.py",
    "test_drain.py", "test_executor.py", "test_compose_pool.py", "test_roost_podman.py",
    "test_roost_nodes.py",
)  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Those files first."""
    rank = {name: place for place, name in enumerate(LONG)}
    items.sort(key=lambda item: rank.get(item.path.name, len(rank)))


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
