"""Rendered app definitions and curl alone, against the emulator of Marathon: no roost command."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from marathon_bench import Marathon, marathon
from node_bench import eventually, waiting
from roost_bench import EXAMPLES, well

from marathon_emulator.definitions import Generation

pytestmark = pytest.mark.engine


@pytest.fixture(params=["1.5", "1.4", "1.1"])
def there(request: pytest.FixtureRequest, image: str) -> Iterator[Marathon]:
    with marathon(request.param) as found:
        yield found


def files(there: Marathon, image: str, directory: Path, *more: str) -> Path:
    """What is rendered of the example for the emulator's words, network and image."""
    generation: Generation = there.emulator.generation
    pool = directory / "pool.yaml"
    text = (EXAMPLES / "marathon" / "pool.yaml").read_text()
    text = text.replace("calinet1", there.network) + f"htcondor: {{image: '{image}'}}\n"
    for line in more:
        text = text.replace("marathon:\n", f"marathon:\n  {line}\n")
    pool.write_text(text)
    version = {"1.5": "1.5+"}.get(generation, generation)
    well("render", "marathon", pool, "--marathon-version", version, "-o", directory / "apps")
    return directory / "apps"


def post(there: Marathon, file: Path) -> None:
    """The line of docs/deploy/marathon.md."""
    done = subprocess.run(
        ["curl", "-sS", "--fail-with-body", "-XPOST", "-H", "Content-Type: application/json",
         f"{there.url}/v2/apps", "-d", f"@{file}"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout)["id"] == f"/physics-{file.stem}"


def test_three_files_and_curl_make_a_pool(there: Marathon, image: str, tmp_path: Path) -> None:
    """In the oldest words a whole pool; in the newer ones a master whose health is asked for over
    HTTP: test_roost_marathon.py has a whole pool of these."""
    http = {"1.4": "http", "1.5": "mesos-http"}.get(there.emulator.generation)
    apps = files(there, image, tmp_path, *([f"health: {http}"] if http else []))
    post(there, apps / "master.json")
    assert there.settled()
    (master,) = there.nodes("/physics-master")
    address = httpx.get(f"{there.url}/v2/apps//physics-master").json()["app"]["tasks"][0]
    assert address["ipAddresses"][0]["ipAddress"] == master.ip
    if http:
        assert httpx.get(f"http://{master.ip}:5000/health").status_code == 200
        return
    post(there, apps / "submit.json")
    post(there, apps / "execute.json")
    asked = eventually(lambda: waiting(master, 3), 120, master)
    # They wait to be admitted, so they are not well, and their apps are locked.
    locked = httpx.put(f"{there.url}/v2/apps//physics-execute", json={"instances": 3})
    assert locked.status_code == 409
    master.sh(f"roost-node approve {' '.join(asked)}")
    assert there.settled()
    hosts = {
        task["host"]
        for task in httpx.get(f"{there.url}/v2/apps//physics-execute").json()["app"]["tasks"]
    }
    assert len(hosts) == 2  # UNIQUE
    executors = {node.hostname for node in there.nodes("/physics-execute")}
    assert len(executors) == 2
    assert set(master.sh("condor_status -af Machine").split()) == executors
