"""A rendered compose.yaml, run by a real Compose to a pool: with the lines of its own head."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from node_bench import Node, eventually
from roost_bench import ask, at_home, fresh, held, well, write

pytestmark = pytest.mark.engine

ROOT = Path(__file__).parents[2]
POOL = """\
htcondor: {{image: '{image}'}}
submit: {{users: [john]}}
execute: [{{count: 1, cpus: 0.5, memory: 256MiB}}]
"""


class Project:
    """A directory with a rendered pool, and the Compose that runs it."""

    def __init__(self, command: str, name: str, directory: Path) -> None:
        self.command, self.name, self.directory = command, name, directory
        said = (directory / "compose.yaml").read_text().split("#\n")[1]
        self.head = [line.removeprefix("# ") for line in said.splitlines()]

    def line(self, text: str) -> str:
        """What a line for a shell prints; `docker compose` is the Compose that is here."""
        done = subprocess.run(
            ["sh", "-ec", text.replace("docker compose", self.command, 1)],
            cwd=self.directory, capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{text}: {done.stderr}{done.stdout}"
        return done.stdout

    def node(self, service: str) -> Node:
        return Node(f"{self.name}-{service}")

    def executors(self) -> list[str]:
        """Those that the collector knows."""
        return sorted(self.node("master").sh("condor_status -af Machine").split())


@pytest.fixture(scope="module")
def project(image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    command = subprocess.run(
        [ROOT / "scripts" / "compose"], check=True, capture_output=True, text=True
    ).stdout.strip()
    directory = tmp_path_factory.mktemp("compose")
    name = fresh("composed")
    with at_home(directory / "state"):
        file = write(directory / "pool.yaml", POOL.format(image=image))
        well("render", "compose", file, "--name", name, "-o", directory / "pool")
    found = Project(command, name, directory / "pool")
    try:
        for line in found.head:
            found.line(line)
        yield found
    finally:
        found.line("docker compose down --volumes --timeout 30")
    assert held(name) == set()


def test_its_head_makes_a_pool_that_is_healthy(project: Project) -> None:
    (executor,) = eventually(project.executors, 120, project.node("master"))
    rows = project.line("docker compose ps --format json").splitlines()
    assert {json.loads(row)["Health"] for row in rows} <= {"healthy", "starting"}
    assert {json.loads(row)["Service"] for row in rows} == {"master", "submit", "execute"}
    assert executor == Node(f"{project.name}-execute-1").hostname


def test_the_demos_job_passes_and_outlives_its_access_point(project: Project) -> None:
    eventually(project.executors, 120, project.node("master"))
    access = project.node("submit")
    for name in ("sleep.sh", "sleep.sub"):
        access.sh(
            f"cat > {name}", user="john", stdin=(Path(__file__).parent / "sleep" / name).read_text()
        )
    access.sh(
        "chmod +x sleep.sh && condor_submit sleep.sub && condor_wait -wait 120 sleep.log",
        user="john",
    )
    assert access.sh("cat sleep.out", user="john").splitlines()[-1] == "done"
    before = access.inspect()["Id"]
    project.line("docker compose up -d --wait --no-deps --force-recreate submit")
    assert access.inspect()["Id"] != before
    assert access.sh("condor_history -af ClusterId", user="john").split() == ["1"]
    assert access.sh("cat sleep.out", user="john").splitlines()[-1] == "done"


def test_it_scales_with_another_token(project: Project) -> None:
    _, token, _ = project.head
    project.line(token.replace("--uses 1", "--uses 3"))
    project.line("docker compose up -d --scale execute=3")
    eventually(lambda: len(project.executors()) == 3, 120, project.node("master"))
    project.line("docker compose up -d --scale execute=1")
    names = ask("ps", "--filter", f"label=roost.pool={project.name}", "--format", "{{.Names}}")
    assert len(names.split()) == 3


def test_secrets_are_files_of_their_owner_and_shown_nowhere(project: Project) -> None:
    files = [path for path in (project.directory / "secrets").rglob("*") if path.is_file()]
    private = [path for path in files if path.suffix == ".key" or path.name == "join-token"]
    assert len(private) >= 4
    for path in private:
        # Users of the access point read the collector with the reader's key.
        wanted = 0o644 if path.name == "reader.key" else 0o600
        assert path.stat().st_mode & 0o777 == wanted, path
    assert (project.directory / "secrets").stat().st_mode & 0o077 == 0
    # Jobs run beside it, as other users.
    reading = ["docker", "exec", "--user", "nobody", f"{project.name}-execute-1",
               "cat", "/run/secrets/join-token"]  # fmt: skip
    done = subprocess.run(reading, capture_output=True, text=True, check=False)
    assert (done.returncode, "Permission denied" in done.stderr) == (1, True)
    shown = "".join(
        ask("inspect", f"{project.name}-{node}") for node in ("master", "submit", "execute-1")
    )
    for path in private:
        for line in path.read_text().splitlines():
            assert line.startswith("-----") or line not in shown
