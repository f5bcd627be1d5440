"""A pool on Podman without root; no part of `./test`: it needs a user with Podman set up for it.

As that user, where the tests' image is a file (`docker save -o FILE IMAGE`):

    ROOST_IMAGE_FILE=FILE .venv/bin/pytest -s tests/pool/by_hand_rootless.py
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from roost_bench import at_home, cycle, fresh, taken_down, well, write

from roost._run import run

#: A job's own view of what it may do.
LOOK = """\
#!/bin/sh
id -u; grep -E 'CapEff|NoNewPrivs' /proc/self/status
cat /var/lib/roost/node.key 2>&1; true
"""


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    if os.geteuid() == 0:
        pytest.fail("run this as a user that is not root")
    run(["podman", "load", "-q", "-i", os.environ["ROOST_IMAGE_FILE"]], timeout=600).check()
    with at_home(tmp_path) as home:
        yield home


def test_up_submit_down(home: Path, tmp_path: Path) -> None:
    cycle(tmp_path, "podman")


def test_a_job_is_nobody_and_what_limits_it(home: Path, tmp_path: Path) -> None:
    with taken_down(fresh("rootless"), "podman") as name:
        on = ("--name", name, "--engine", "podman")
        well("up", *on, "--memory", "256MiB")
        write(tmp_path / "look.sh", LOOK, 0o755)
        file = write(tmp_path / "look.sub", "executable = look.sh\noutput = look.out\n"
                     "should_transfer_files = YES\nqueue\n")  # fmt: skip
        well("submit", "--wait", file, *on)
        uid, *rights, key = (tmp_path / "look.out").read_text().splitlines()
        assert int(uid) > 30000
        assert [line.split()[1] for line in rights] == ["0" * 16, "1"]
        assert key.endswith("Permission denied")
        limits = json.loads(run(["podman", "inspect", f"{name}-execute-1"]).check().text)[0]
        said = {key: limits["HostConfig"][key] for key in ("Memory", "PidsLimit", "NanoCpus")}
        print(f"limits that Podman knows of: {said}")
