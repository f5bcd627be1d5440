"""The `roost` command as a user runs it: a process of its own, whose words and status count."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from roost._run import run

ROOST: Final = str(Path(sys.executable).with_name("roost"))
Json = Any
EXAMPLES: Final = Path(__file__).parents[2] / "examples"


def roost(
    *argv: str | Path,
    cwd: Path | None = None,
    stdin: str = "",
    env: Mapping[str, str] | None = None,
    timeout: float = 240,
) -> subprocess.CompletedProcess[str]:
    """Run `roost` to its end; never with a terminal."""
    return subprocess.run(
        [ROOST, *map(str, argv)],
        cwd=cwd,
        input=stdin,
        env=os.environ | env if env else None,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def well(*argv: str | Path, cwd: Path | None = None, stdin: str = "") -> str:
    """What `roost` prints, if it ends with 0."""
    done = roost(*argv, cwd=cwd, stdin=stdin)
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout


def refused(done: subprocess.CompletedProcess[str], status: int = 2) -> str:
    """The one sentence that a refused command said, without its `roost: `."""
    assert done.returncode == status, (done.returncode, done.stdout, done.stderr)
    assert "Traceback" not in done.stderr
    assert "unexpected" not in done.stderr
    *progress, last = done.stderr.splitlines()
    assert last.startswith("roost: "), done.stderr
    assert not [line for line in progress if line.startswith("roost: ")], done.stderr
    return last.removeprefix("roost: ")


def fresh(prefix: str) -> str:
    """A pool's name that nobody else has."""
    return f"{prefix}-{uuid.uuid4().hex[:6]}"


@contextmanager
def at_home(directory: Path) -> Iterator[Path]:
    """With pools' keys below `directory`, and no pool or engine chosen by the environment."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(directory))
        for variable in ("ROOST_POOL", "ROOST_ENGINE", "ROOST_TRACEBACK", "NO_COLOR"):
            patch.delenv(variable, raising=False)
        yield directory / "roost"


@contextmanager
def taken_down(name: str, engine: str = "docker") -> Iterator[str]:
    """However the body ends, nothing of the pool is left then."""
    try:
        yield name
    finally:
        done = roost("down", "--name", name, "--engine", engine)
        assert done.returncode == 0, done.stderr
        assert held(name, engine) == set()


def ask(*argv: str, engine: str = "docker") -> str:
    """What the engine itself says."""
    return run([engine, *argv]).check().text


def ids(pool: str, engine: str = "docker") -> dict[str, str]:
    """Node → the id of its container; a node that was made anew has another."""
    lines = ask("ps", "-a", "--no-trunc", "--filter", f"label=roost.pool={pool}",
                "--format", "{{.Names}} {{.ID}}", engine=engine)  # fmt: skip
    return dict(line.split() for line in lines.splitlines())


def held(pool: str, engine: str = "docker") -> set[str]:
    """Every container, volume and network on the engine whose name is the pool's or begins so."""
    listed = [
        *ask("ps", "-a", "--format", "{{.Names}}", engine=engine).split(),
        *ask("volume", "ls", "--format", "{{.Name}}", engine=engine).split(),
        *ask("network", "ls", "--format", "{{.Name}}", engine=engine).split(),
    ]
    return {name for name in listed if name == pool or name.startswith(f"{pool}-")}


def write(path: Path, text: str, mode: int = 0o644) -> Path:
    path.write_text(text)
    path.chmod(mode)
    return path


def plain(text: str) -> bool:
    """Nothing in it that only a terminal understands."""
    return not any(mark in text for mark in ("\x1b", "\r", "\b"))


def cycle(tmp: Path, engine: str, *up: str) -> str:
    """up → submit → status → down on an engine; HTCondor's version in the pool."""
    name = fresh("cycle")
    submit = write(
        tmp / "say.sub",
        """\
executable = say.sh
log = say.log
output = say.out
error = say.err
should_transfer_files = Yes
when_to_transfer_output = ON_EXIT
queue 3
""",
    )
    write(tmp / "say.sh", "#!/bin/sh\necho on $(hostname)\n", 0o755)
    with taken_down(name, engine):
        on = ("--name", name, "--engine", engine)
        said = well("up", *on, "--executors", "2", "--memory", "256MiB", *up)
        assert said == f"The pool {name} is up: 2 executors, on {engine}.\n"
        before = ids(name, engine)
        assert len(before) == 4
        well("up", *on, *up)
        assert ids(name, engine) == before
        done = json.loads(well("submit", "--wait", "--json", submit, *on))
        assert [job["exit_code"] for job in done["jobs"]] == [0, 0, 0]
        assert (tmp / "say.out").read_text().startswith(f"on {name}-execute-")
        assert len(json.loads(well("q", "--all", "--json", *on))) == 4  # the first job, too
        status = json.loads(well("status", "--json", *on))
        assert {node["state"] for node in status["nodes"]} == {"running"}
        assert {slot["total_memory"] for slot in status["slots"]} == {256}
        version = well("exec", "submit", *on, "condor_version").split()[1]
        well("scale", "1", *on)
        after = ids(name, engine)
        assert len(after) == 3
        assert after.items() <= before.items()
        assert "negotiator" in well("logs", "master", *on)
        assert [row for row in json.loads(well("doctor", "--json", *on))
                if row["severity"] == "error"] == []  # fmt: skip
        well("down", *on)
        assert held(name, engine) == set()
    return version
