"""Jobs through `roost`: what goes along, what comes back, and what is said about them meanwhile."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from node_bench import eventually
from roost_bench import Json, at_home, fresh, plain, refused, roost, taken_down, well, write

pytestmark = pytest.mark.engine

JOB_KEYS = {
    "id", "owner", "state", "command", "submitted", "run_time", "host", "exit_code", "signal",
    "hold_reason", "remove_reason", "directory",
}  # fmt: skip
RESULT_KEYS = {"id", "state", "exit_code", "signal", "reason"}


@pytest.fixture(scope="module", autouse=True)
def pool(image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A pool that every command of this module means, without saying so."""
    directory = tmp_path_factory.mktemp("jobs")
    with (
        at_home(directory),
        taken_down(fresh("jobs")) as name,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setenv("ROOST_POOL", name)
        file = write(
            directory / "pool.yaml",
            f"name: {name}\nsubmit: {{users: [john, mary]}}\nexecute: [{{count: 2}}]\n",
        )
        well("up", file)
        yield name


def read(*argv: str | Path, status: int = 0, cwd: Path | None = None) -> Json:
    """What a command prints with --json."""
    done = roost(*argv, "--json", cwd=cwd)
    assert done.returncode == status, done.stderr
    return json.loads(done.stdout)


def submitted(file: Path) -> str:
    return str(read("submit", file)["cluster"])


def left() -> str:
    """What submissions leave on the access point: their directories, and their jobs."""
    return well("exec", "submit", "--user", "john", "--", "sh", "-c",
                "ls ~/roost; condor_q -af ClusterId; condor_history -af ClusterId")  # fmt: skip


def script(directory: Path, name: str, text: str) -> Path:
    return write(directory / name, f"#!/bin/sh\n{text}\n", 0o755)


def test_outputs_come_back_beside_the_submit_file(tmp_path: Path, pool: str) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "job").mkdir()
    script(
        tmp_path / "job",
        "say.sh",
        'echo "on $(hostname) as $(id -un)"; echo oops >&2; echo made > made',
    )
    write(tmp_path / "job/say.sub", """\
executable = say.sh
log = say.log
output = say.out
error = say.err
should_transfer_files = Yes
when_to_transfer_output = ON_EXIT
queue
""")  # fmt: skip
    # from anywhere: names are relative to the submit file
    done = roost("submit", "../job/say.sub", "--wait", cwd=tmp_path / "elsewhere")
    assert done.returncode == 0, done.stderr
    assert plain(done.stdout + done.stderr)
    files = {path.name for path in (tmp_path / "job").iterdir()}
    assert files == {"say.sh", "say.sub", "say.log", "say.out", "say.err", "made"}
    assert not list((tmp_path / "elsewhere").iterdir())
    host, user = (tmp_path / "job/say.out").read_text().split()[1::2]
    assert host.startswith(f"{pool}-execute-")
    assert user != "root"
    assert (tmp_path / "job/say.err").read_text() == "oops\n"
    assert "Job terminated" in (tmp_path / "job/say.log").read_text()
    first, *listed = done.stdout.splitlines()
    assert first.endswith(".0 ended with exit code 0.")
    assert {Path(line).name for line in listed} == files - {"say.sh", "say.sub"}
    assert (tmp_path / "job/say.out").stat().st_uid == os.getuid()


def test_inputs_go_along(tmp_path: Path) -> None:
    (tmp_path / "data/deep").mkdir(parents=True)
    write(tmp_path / "data/deep/a.txt", "from a directory\n")
    write(tmp_path / "in put.txt", "with a blank\n")
    write(tmp_path / "stdin.txt", "from stdin\n")
    script(tmp_path, "tool.sh", "echo from a tool")
    write(tmp_path / "secret.txt", "for its owner\n", 0o600)
    script(
        tmp_path,
        "run.sh",
        """\
cat; ./tool.sh; cat data/deep/a.txt "in put.txt"
stat -c '%n %a' tool.sh secret.txt; echo "$1"; mkdir out; echo nested > out/nested""",
    )
    write(tmp_path / "run.sub", """\
executable = run.sh
arguments = "'$(greeting) world'"
greeting = hello
input = stdin.txt
transfer_input_files = data, in put.txt, tool.sh, secret.txt
transfer_output_files = out
output = $(Cluster).$(Process).out
error = run.err
log = run.log
should_transfer_files = YES
when_to_transfer_output = ON_EXIT
queue
""")  # fmt: skip
    result = read("submit", tmp_path / "run.sub", "--wait")
    cluster = result["jobs"][0]["id"].partition(".")[0]
    assert (tmp_path / "run.err").read_text() == ""
    assert (tmp_path / f"{cluster}.0.out").read_text() == (
        "from stdin\nfrom a tool\nfrom a directory\nwith a blank\n"
        "tool.sh 755\nsecret.txt 600\nhello world\n"
    )
    assert (tmp_path / "out/nested").read_text() == "nested\n"
    # what went along comes back as it was: not at all
    assert stat.S_IMODE((tmp_path / "secret.txt").stat().st_mode) == 0o600
    assert {Path(file).name for file in result["files"]} == {
        "nested", "run.err", "run.log", f"{cluster}.0.out"
    }  # fmt: skip


def test_queue_from_a_file(tmp_path: Path) -> None:
    write(tmp_path / "list.txt", "one, 1\ntwo, 2\n")
    script(tmp_path, "say.sh", 'cat "$1"; exit 0')
    for name in ("one", "two"):
        write(tmp_path / name, f"{name}'s own\n")
    write(tmp_path / "many.sub", """\
executable = say.sh
arguments = $(word)
transfer_input_files = $(word)
output = $(word).$(number).out
log = many.log
should_transfer_files = YES
queue word, number from list.txt
""")  # fmt: skip
    result = read("submit", tmp_path / "many.sub", "--wait")
    assert [set(job) for job in result["jobs"]] == [RESULT_KEYS] * 2
    assert [(job["state"], job["exit_code"]) for job in result["jobs"]] == [("completed", 0)] * 2
    assert (tmp_path / "one.1.out").read_text() == "one's own\n"
    assert (tmp_path / "two.2.out").read_text() == "two's own\n"


def test_submit_then_wait(tmp_path: Path) -> None:
    script(tmp_path, "fail.sh", "echo before; exit 3")
    write(tmp_path / "fail.sub", "executable = fail.sh\noutput = fail.out\nlog = fail.log\nqueue\n")
    done = roost("submit", tmp_path / "fail.sub", "--user", "mary")
    cluster = done.stdout.split()[4].rstrip(";")
    assert done.stdout == f"1 job submitted as {cluster}; `roost wait {cluster}` waits.\n"
    ended = roost("wait", cluster)
    assert ended.returncode == 1
    assert f"Job {cluster}.0 ended with exit code 3.\n" in ended.stdout
    assert (tmp_path / "fail.out").read_text() == "before\n"
    assert read("q", "--all", "--user", "mary")[-1]["id"] == f"{cluster}.0"
    assert f"{cluster}.0" not in {job["id"] for job in read("q", "--all", "--user", "john")}
    assert "ended with exit code 3" in well("why", cluster)
    # its outputs were fetched and are gone from the access point
    assert "fetched before" in refused(roost("wait", cluster), 1)


def test_a_signal_ends_a_job(tmp_path: Path) -> None:
    script(tmp_path, "kill.sh", "kill -9 $$")
    write(tmp_path / "kill.sub",
          "executable = kill.sh\nlog = kill.log\n+RoostKeepKilled = True\nqueue\n")  # fmt: skip
    (job,) = read("submit", tmp_path / "kill.sub", "--wait", status=1)["jobs"]
    assert (job["exit_code"], job["signal"]) == (None, 9)


def test_a_request_that_nothing_meets(tmp_path: Path) -> None:
    write(tmp_path / "huge.sub", """\
executable = /bin/true
transfer_executable = False
request_cpus = 64
request_memory = 1 TB
queue
""")  # fmt: skip
    cluster = submitted(tmp_path / "huge.sub")
    said = well("why", cluster)
    assert said.startswith(f"Job {cluster}.0 is idle.\n- it asks for 64 CPUs, but the largest")
    reason = read("why", f"{cluster}.0")
    assert set(reason) == {"id", "state", "reasons", "jobs", "rest"}
    assert (reason["jobs"], reason["rest"]) == ([f"{cluster}.0"], [])
    assert reason["state"] == "idle"
    assert any("memory" in text for text in reason["reasons"])
    late = roost("wait", cluster, "--timeout", "1")
    assert late.returncode == 1
    assert f"job {cluster} is not done after 1 s, but idle; see `roost why" in late.stderr
    assert set(read("q")[-1]) == JOB_KEYS
    assert well("rm", cluster) == f"Removed {cluster}.0.\n"
    assert cluster not in {job["id"].partition(".")[0] for job in read("q")}
    assert "it was removed" in well("why", cluster)
    assert "there is no job" in refused(roost("rm", cluster), 1)


def test_a_held_job(tmp_path: Path) -> None:
    script(tmp_path, "wrong.sh", "true")
    (tmp_path / "wrong.sh").write_text("#!/no/such/interpreter\n")
    write(tmp_path / "wrong.sub", "executable = wrong.sh\nlog = wrong.log\nqueue\n")
    cluster = submitted(tmp_path / "wrong.sub")
    held = refused(roost("wait", cluster), 1)
    assert held.startswith(f"job {cluster}.0 is held: ")
    said = well("why", cluster)
    assert said.startswith(f"Job {cluster}.0 is held.\n- it has been held for")
    assert "check its first line (#!)" in said
    assert read("q")[-1]["hold_reason"]
    findings = read("doctor")
    assert [found["where"] for found in findings if "is held" in found["what"]] == ["queue"]
    well("rm", cluster)


def test_removing_a_running_job_and_one_of_several(tmp_path: Path) -> None:
    write(tmp_path / "sleep.sub", """\
executable = /bin/sleep
transfer_executable = False
arguments = 300
request_memory = 32
log = sleep.log
queue 2
""")  # fmt: skip
    said = read("submit", tmp_path / "sleep.sub")
    assert set(said) == {"cluster", "jobs"}
    one, two = said["jobs"]
    cluster = str(said["cluster"])

    def running() -> bool:
        states = {job["id"]: job["state"] for job in read("q")}
        return states.get(one) == states.get(two) == "running"

    eventually(running, 60, what=lambda: well("why", cluster))
    assert "has been running on" in well("why", one)
    text = well("q")
    head = "ID OWNER STATE RUN TIME SUBMITTED HOST COMMAND"
    assert text.splitlines()[0].split() == head.split()
    assert plain(text)
    status = read("status")
    assert status["jobs"]["running"] == 2
    assert {slot["user"] for slot in status["slots"] if slot["kind"] == "dynamic"} == {"john"}
    well("rm", one)
    assert two in {job["id"] for job in read("q")}
    assert one not in {job["id"] for job in read("q")}
    well("rm", cluster)
    assert read("q") == []
    ended = read("wait", cluster, status=1)
    assert [job["state"] for job in ended["jobs"]] == ["removed", "removed"]
    eventually(lambda: well("q") == "The queue is empty.\n", 10)


@pytest.mark.parametrize(
    "text, status, said",
    [
        ("executable = nothing.sh\nqueue\n", 2, "a.sub:1: executable: "),
        ("executable = a.sub\ntransfer_input_files = gone.txt\nqueue\n", 2,
         "a.sub:2: transfer_input_files: "),
        ("executable = /no/such/program\nqueue\n", 2, "is not on the access point"),
        ("executable = a.sub\noutput = no/such/out\nqueue\n", 2, "there is no directory"),
        ("executable = a.sub\nthis is no command\nqueue\n", 2, "a.sub:2"),
        ("executable = a.sub\n", 2, "queue"),
        ("executable = a.sub\nqueue x from list.txt\n", 2, "list.txt"),
        ("executable = a.sub\nrequest_cpus = lots of them\nqueue\n", 2, "lots of them"),
    ],
    ids=["executable", "input", "absolute", "directory", "syntax", "no queue", "list", "value"],
)  # fmt: skip
def test_a_submit_file_that_is_refused(tmp_path: Path, text: str, status: int, said: str) -> None:
    before = left()
    write(tmp_path / "a.sub", text)
    sentence = refused(roost("submit", "a.sub", "--wait", cwd=tmp_path), status)
    assert said in sentence
    assert {path.name for path in tmp_path.iterdir()} == {"a.sub"}
    assert left() == before


def test_what_is_not_there(tmp_path: Path) -> None:
    assert "does not exist" in refused(roost("submit", tmp_path / "none.sub"))
    assert "is not a file" in refused(roost("submit", tmp_path))
    write(tmp_path / "a.sub", "executable = /bin/true\nqueue\n")
    assert "no user 'bob'" in refused(roost("submit", "--user", "bob", tmp_path / "a.sub"))
    assert "not a user's name" in refused(roost("submit", "--user", "-x", tmp_path / "a.sub"))
    for command, word in (("why", "abc"), ("rm", "1.x"), ("wait", "-1"), ("why", "0")):
        assert "is not a job id" in refused(roost(command, "--", word))
    for command in ("why", "rm", "wait"):
        assert "there is no job 99999" in refused(roost(command, "99999"), 1)


def test_an_output_elsewhere_is_announced(tmp_path: Path) -> None:
    (tmp_path / "job").mkdir()
    write(tmp_path / "job/a.sub", "executable = /bin/true\noutput = ../a.out\nlog = a.log\nqueue\n")
    done = roost("submit", "--wait", tmp_path / "job/a.sub")
    assert done.returncode == 0
    assert "lies outside" in done.stderr
    assert not (tmp_path / "a.out").exists()
    assert (tmp_path / "job/a.log").exists()
