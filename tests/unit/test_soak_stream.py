"""The soak's jobs do what its judge expects of them."""

from __future__ import annotations

import socket
import subprocess
from pathlib import Path

import pytest

from soak.oracle import expected_data, expected_output
from soak.schedule import Batch, Job
from soak.stream import write

JOBS = (Job("b1-0", "alice", 0, 0), Job("b1-1", "alice", 0, 7))
FED = (Job("b2-0", "bob", 0, 3, "input 1\ninput 2\n"),)


def run(job: Job, directory: Path) -> None:
    done = subprocess.run(
        ["./job.sh", job.id, str(job.seconds), str(job.exit_code)],
        cwd=directory, capture_output=True, text=True, check=False, timeout=30,
    )  # fmt: skip
    assert done.returncode == job.exit_code
    assert done.stdout == expected_output(job, socket.gethostname())
    assert done.stderr == ""


@pytest.mark.parametrize("jobs", [JOBS, FED])
def test_a_job_makes_what_is_expected_of_it(jobs: tuple[Job, ...], tmp_path: Path) -> None:
    directory = write(Batch("b", 0, jobs[0].user, "quick", jobs), tmp_path / "b").parent
    for job in jobs:
        run(job, directory)
        data = (directory / f"{job.id}.data").read_text()
        assert data == expected_data(job)
        assert data.count(job.id) == 50
        # where an earlier run had left its result, that shows
        run(job, directory)
        assert (directory / f"{job.id}.data").read_text() != expected_data(job)


def test_a_submit_file_names_every_job(tmp_path: Path) -> None:
    text = write(Batch("b1", 0, "alice", "array", JOBS), tmp_path / "b1").read_text()
    assert text.endswith("queue id, seconds, code from (\nb1-0, 0, 0\nb1-1, 0, 7\n)\n")
    assert "transfer_input_files" not in text
    fed = write(Batch("b2", 0, "bob", "input", FED), tmp_path / "b2").read_text()
    assert "transfer_input_files = $(id).in\n" in fed
