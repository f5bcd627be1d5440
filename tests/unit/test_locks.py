"""What is installed: one version of everything, and only files whose hashes are known."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def locked(name: str) -> dict[str, tuple[Requirement, list[str]]]:
    """Each package of a lock, with the hashes of its files."""
    text = re.sub(r"#.*", "", (ROOT / name).read_text()).replace("\\\n", " ")
    found: dict[str, tuple[Requirement, list[str]]] = {}
    for line in filter(str.strip, text.splitlines()):
        requirement = Requirement(line.split("--hash")[0])
        found[canonicalize_name(requirement.name)] = (
            requirement,
            re.findall(r"--hash=sha256:([0-9a-f]{64})(?=\s|$)", line),
        )
    return found


RUN, DEV = locked("requirements.txt"), locked("requirements-dev.txt")
ASKED = {
    "requirements.txt": PROJECT["project"]["dependencies"] + PROJECT["dependency-groups"]["build"],
}
ASKED["requirements-dev.txt"] = ASKED["requirements.txt"] + [
    each for extra in PROJECT["project"]["optional-dependencies"].values() for each in extra
]


@pytest.mark.parametrize("name", ASKED)
def test_everything_is_at_one_version_with_hashes(name: str) -> None:
    there = locked(name)
    for requirement, hashes in there.values():
        (pin,) = requirement.specifier
        assert pin.operator == "==", requirement
        assert hashes, requirement
    for asked in map(Requirement, ASKED[name]):
        (pin,) = there[canonicalize_name(asked.name)][0].specifier
        assert asked.specifier.contains(pin.version), f"run scripts/lock: {asked}"


def test_what_runs_is_what_is_tested() -> None:
    assert RUN.items() <= DEV.items()
    assert {"pytest", "mypy", "htcondor"} <= DEV.keys() - RUN.keys()
