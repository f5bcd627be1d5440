"""The engine itself stops and starts again, while jobs run and wait.

No part of `./test`, because it needs root and a machine that lets a second Docker run; by hand:

    .venv/bin/pytest tests/pool/faults/by_hand_engine.py

It runs a Docker of its own, in network and mount namespaces of its own, so that the one that runs
everything else is not disturbed.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from node_bench import Node, eventually
from roost_bench import at_home, ids, roost, well, write
from test_access_point import POOL, Pool

from roost._run import run

pytestmark = pytest.mark.engine


class Docker:
    """A second Docker daemon."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.host = f"unix://{directory}/sock"
        # Whoever holds the namespaces; the daemon may go, its mounts stay.
        self._holder = subprocess.Popen(
            ["unshare", "--net", "--mount", "sh", "-c",
             # Debian's containerd listens there, or will: with its socket in sight dockerd uses it.
             "ip link set lo up && mkdir -p /run/containerd && mount -t tmpfs tmpfs /run/containerd"
             f" && touch {directory}/ready && exec sleep infinity"]
        )  # fmt: skip
        eventually((directory / "ready").exists, 10)
        self._daemon: subprocess.Popen[bytes] | None = None
        write(directory / "daemon.json", "{}")

    def start(self) -> None:
        at = self.directory
        with (at / "log").open("ab") as log:
            self._daemon = subprocess.Popen(
                ["nsenter", "--target", str(self._holder.pid), "--net", "--mount", "dockerd",
                 "--config-file", at / "daemon.json", "--data-root", at / "data",
                 "--exec-root", at / "exec", "--pidfile", at / "pid", "--host", self.host,
                 "--cgroup-parent", f"/{at.name}"],
                stdout=log, stderr=log,
            )  # fmt: skip
        version = ["docker", "-H", self.host, "version"]
        eventually(lambda: run(version).status == 0, 60)

    def stop(self) -> None:
        """With all its containers, as at the machine's shutdown."""
        assert self._daemon is not None
        self._daemon.terminate()
        self._daemon.wait(120)

    def close(self) -> None:
        self.stop()
        self._holder.terminate()
        self._holder.wait()


@pytest.fixture(scope="module")
def docker(image: str) -> Iterator[Docker]:
    # Short, because sockets' paths are; and on a disk that an overlay may be on.
    with tempfile.TemporaryDirectory(prefix="roost-docker-", dir="/var/tmp") as directory:
        docker = Docker(Path(directory))
        docker.start()
        try:
            saved = subprocess.run(["docker", "save", image], capture_output=True, check=True)
            subprocess.run(
                ["docker", "-H", docker.host, "load"],
                input=saved.stdout, check=True, capture_output=True,
            )  # fmt: skip
            yield docker
        finally:
            docker.close()


@pytest.fixture(scope="module")
def pool(docker: Docker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pool]:
    home = tmp_path_factory.mktemp("home")
    with at_home(home), pytest.MonkeyPatch.context() as patch:
        patch.setenv("ROOST_POOL", "again")
        patch.setenv("DOCKER_HOST", docker.host)
        well("up", write(home / "pool.yaml", POOL.format(name="again")))
        yield Pool("again")
        well("down")


@pytest.mark.parametrize("name", ["once", "twice"])
def test_the_engine_is_started_again(docker: Docker, pool: Pool, name: str, tmp_path: Path) -> None:
    """What ran with the engine runs again, what waited waits, and nobody says `roost up`."""
    cluster = pool.work(tmp_path, name, 4, code=7)
    eventually(lambda: sum(pool.runs(name).values()) == 2, 120, pool.access)
    first = pool.runs(name)
    before = ids(pool.name)
    began = time.monotonic()
    docker.stop()
    ended = time.monotonic()
    docker.start()
    up = time.monotonic()
    eventually(lambda: sum(pool.queue(cluster).values()) >= 4, 120, pool.access)
    answers = time.monotonic()
    nodes = [Node(node) for node in ids(pool.name)]
    eventually(lambda: all(node.running for node in nodes), 60)
    eventually(lambda: sum(pool.runs(name).values()) == 4, 300, pool.access)
    again = time.monotonic()
    assert ids(pool.name) == before
    pool.let_go(name)
    done = json.loads(roost("wait", str(cluster), "--json").stdout)
    assert [job["exit_code"] for job in done["jobs"]] == [7] * 4
    for number in range(4):
        assert (tmp_path / f"{name}.{number}.out").read_text() == f"ran {number}\n"
    runs = pool.runs(name)
    print(f"\n{name}: engine down after {ended - began:.1f} s, up {up - ended:.1f} s later; "
          f"the queue answers {answers - up:.1f} s after that, jobs run {again - up:.1f} s after "
          f"it; runs {runs}")  # fmt: skip
    assert sum(runs.values()) == 6
    assert {number for number, times in runs.items() if times == 2} == first.keys()
