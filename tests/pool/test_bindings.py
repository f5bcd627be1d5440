"""`roost env`: the htcondor bindings on this machine reach a real pool, as its users."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from roost_bench import at_home, fresh, taken_down, well, write

pytestmark = pytest.mark.engine

#: Each in a process of its own: the bindings read CONDOR_CONFIG when they are imported.
BEGIN = """
import sys, time
import htcondor2
pool = sys.argv[1]
schedd = htcondor2.Schedd()
"""
SUBMIT = (
    BEGIN
    + """
names = [ad["Name"] for ad in htcondor2.Collector().query(htcondor2.AdType.Startd)]
assert names and all(f"{pool}-execute-1" in name for name in names), names
located = htcondor2.Collector().locate(htcondor2.DaemonType.Schedd, f"{pool}-submit")
assert located["Name"] == f"{pool}-submit", located
job = htcondor2.Submit({
    "executable": "say.sh", "arguments": "$(Process)",
    "transfer_input_files": "input.txt",
    "output": "say.$(Process).out", "error": "say.err", "log": "say.log",
    "should_transfer_files": "YES", "when_to_transfer_output": "ON_EXIT",
})
submitted = schedd.submit(job, count=2, spool=True)
schedd.spool(submitted)
this = f"ClusterId == {submitted.cluster()}"
deadline = time.monotonic() + 120
while True:
    ads = schedd.query(this, projection=["JobStatus", "Owner", "User", "ExitCode", "HoldReason"])
    if len(ads) == 2 and all(ad["JobStatus"] == 4 for ad in ads):
        break
    assert time.monotonic() < deadline, ads
    time.sleep(0.5)
assert [(ad["Owner"], ad["ExitCode"]) for ad in ads] == [("john", 0), ("john", 1)], ads
schedd.retrieve(this)
schedd.act(htcondor2.JobAction.Remove, this)
print(submitted.cluster())
"""
)
#: Somebody else's job is not this user's to touch, and nobody submits in another's name.
TOUCH = (
    BEGIN
    + """
job = schedd.query(f"ClusterId == {sys.argv[2]}", projection=["Owner", "JobStatus"])
assert job[0]["Owner"] == "john", job
try:
    said = schedd.act(htcondor2.JobAction.Remove, f"ClusterId == {sys.argv[2]}")
except htcondor2.HTCondorException:
    pass
else:
    assert said["TotalSuccess"] == 0, said
assert schedd.query(f"ClusterId == {sys.argv[2]}", projection=["JobStatus"])[0]["JobStatus"] == 1
"""
)


@pytest.fixture(scope="module")
def pool(image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    directory = tmp_path_factory.mktemp("bindings")
    with at_home(directory / "state"), taken_down(fresh("bind")) as name:
        file = write(directory / "pool.yaml", f"name: {name}\nsubmit: {{users: [john, mary]}}\n")
        well("up", file)
        yield name


def python(code: str, *argv: str, env: dict[str, str], cwd: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code, *argv], cwd=cwd, env=os.environ | env,
        capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(autouse=True)
def bindings() -> None:
    pytest.importorskip("htcondor2", reason="pip install htcondor gives the bindings")


def environment(pool: str, user: str) -> dict[str, str]:
    found: dict[str, str] = json.loads(well("env", "--json", "--user", user, "--name", pool))
    return found


def test_submit_query_and_retrieve(pool: str, tmp_path: Path) -> None:
    write(tmp_path / "say.sh", '#!/bin/sh\necho "$(hostname): $(cat input.txt)"; exit $1\n', 0o755)
    write(tmp_path / "input.txt", "what was sent\n")
    cluster = python(SUBMIT, pool, env=environment(pool, "john"), cwd=tmp_path).strip()
    for process in (0, 1):
        said = (tmp_path / f"say.{process}.out").read_text()
        assert said == f"{pool}-execute-1: what was sent\n"
    # the command sees the same queue
    history = json.loads(well("q", "--all", "--json", "--name", pool))
    assert f"{cluster}.0" in {job["id"] for job in history}


def test_each_user_is_itself(pool: str, tmp_path: Path) -> None:
    write(tmp_path / "a.sub", "executable = /bin/true\nrequest_cpus = 99\nqueue\n")
    cluster = str(
        json.loads(well("submit", tmp_path / "a.sub", "--json", "--name", pool))["cluster"]
    )
    python(TOUCH, pool, cluster, env=environment(pool, "mary"), cwd=tmp_path)
    well("rm", cluster, "--name", pool)


def test_without_the_pools_credentials_nobody_answers(pool: str, tmp_path: Path) -> None:
    """The same addresses and authority, but neither certificate nor key."""
    config = Path(environment(pool, "john")["CONDOR_CONFIG"])
    text = config.read_text()
    own = ("AUTH_SSL_CLIENT_CERTFILE", "AUTH_SSL_CLIENT_KEYFILE")
    lines = [line for line in text.splitlines() if not line.startswith(own)]
    assert len(lines) == len(text.splitlines()) - 2
    bare = write(tmp_path / "bare.conf", "\n".join(lines) + "\n")
    python("""
import htcondor2
for ask in (lambda: htcondor2.Collector().query(htcondor2.AdType.Startd),
            lambda: htcondor2.Schedd().query()):
    try:
        found = ask()
    except htcondor2.HTCondorException:
        continue
    raise SystemExit(f"answered: {found}")
""", env={"CONDOR_CONFIG": str(bare)}, cwd=tmp_path)  # fmt: skip
