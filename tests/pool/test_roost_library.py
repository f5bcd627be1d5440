"""The library: a pool for the length of a `with`, and the errors that it raises."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from roost_bench import at_home, fresh, held, write

from roost import BadInput, JobError, Pool, PoolNotFound

pytestmark = pytest.mark.engine


@pytest.fixture
def home(tmp_path: Path, image: str) -> Iterator[Path]:
    with at_home(tmp_path / "state") as home:
        yield home


def test_a_pool_for_a_while(home: Path, tmp_path: Path) -> None:
    name = fresh("lib")
    write(tmp_path / "job.sh", "#!/bin/sh\necho from $(hostname)\nexit $1\n", 0o755)
    write(tmp_path / "job.sub", """\
executable = job.sh
arguments = $(code)
output = $(code).out
log = job.log
queue code in (0 4)
""")  # fmt: skip
    with Pool.up(executors=2, name=name) as pool:
        assert [node.name for node in pool.observe().nodes if node.role == "execute"] == [
            f"{name}-execute-1", f"{name}-execute-2"
        ]  # fmt: skip
        job = pool.submit(tmp_path / "job.sub")
        assert job.wait(timeout=120) is job
        assert job.exit_code == 4
        assert [result.exit_code for result in job.results] == [0, 4]
        assert (tmp_path / "0.out").read_text().startswith(f"from {name}-execute-")
        # another that is attached sees the same
        other = Pool.attach(name)
        assert other.spec.execute[0].count == 2
        assert {slot.node.split(".")[0] for slot in other.status().slots or ()} == {
            f"{name}-execute-1", f"{name}-execute-2"
        }  # fmt: skip
        other.scale(1)
        assert [node.role for node in pool.observe().nodes].count("execute") == 1
        write(tmp_path / "huge.sub", "executable = /bin/true\nrequest_cpus = 99\nqueue\n")
        with pytest.raises(JobError, match="is not done after 1 s"):
            pool.submit(tmp_path / "huge.sub").wait(timeout=1)
        with pytest.raises(BadInput, match="does not exist"):
            pool.submit(tmp_path / "none.sub")
        with pytest.raises(BadInput, match="no group 'gpu'"):
            pool.scale({"gpu": 1})
    assert held(name) == set()
    assert not (home / name).exists()
    with pytest.raises(PoolNotFound, match=name):
        Pool.attach(name)


def test_down_also_after_an_error(home: Path) -> None:
    name = fresh("lib")
    with pytest.raises(ZeroDivisionError), Pool.up(name=name, executors=0) as pool:
        assert {node.role for node in pool.observe().nodes} == {"master", "submit"}
        raise ZeroDivisionError
    assert held(name) == set()
