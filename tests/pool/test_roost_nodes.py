"""Looking into a pool with `roost`: its nodes, their logs, a command or a shell in them, doctor."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import stat
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml
from jsonschema import Draft202012Validator
from node_bench import eventually
from roost_bench import (
    EXAMPLES,
    ROOST,
    Json,
    ask,
    at_home,
    fresh,
    held,
    plain,
    refused,
    roost,
    taken_down,
    well,
    write,
)

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module", autouse=True)
def pool(image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A pool that every command of this module means, without saying so."""
    with (
        at_home(tmp_path_factory.mktemp("nodes")),
        taken_down(fresh("look")) as name,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setenv("ROOST_POOL", name)
        well("up")
        yield name


def nodes_of(pool: str) -> list[str]:
    return [f"{pool}-{node}" for node in ("execute-1", "master", "submit")]


@contextmanager
def typing_into(argv: Sequence[str]) -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    """A command with a terminal of its own, as a person has it; the file is the terminal."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        argv, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
        env=os.environ | {"TERM": "xterm"},
    ) as process:  # fmt: skip
        os.close(theirs)
        try:
            yield ours, process
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            os.close(ours)


def until(terminal: int, text: str, seconds: float = 30) -> str:
    """What the terminal shows, once `text` is in it; the end of the command ends it, too."""
    shown = ""
    deadline = time.monotonic() + seconds
    while text not in shown:
        left = deadline - time.monotonic()
        assert left > 0, f"no {text!r} in {shown!r}"
        if select.select([terminal], [], [], left)[0]:
            try:
                shown += os.read(terminal, 4096).decode(errors="replace")
            except OSError:  # nobody writes to it any more
                assert text in shown, f"no {text!r} in {shown!r}"
    return shown


# --- listings ----------------------------------------------------------------------------------


def test_status(pool: str) -> None:
    found: Json = json.loads(well("status", "--json"))
    assert set(found) == {"pool", "nodes", "slots", "jobs", "no_slots", "no_jobs"}
    assert found["pool"] == pool
    assert [(node["name"], node["role"], node["state"]) for node in found["nodes"]] == [
        (f"{pool}-execute-1", "execute", "running"),
        (f"{pool}-master", "master", "running"),
        (f"{pool}-submit", "submit", "running"),
    ]
    for node in found["nodes"]:
        assert set(node) == {"name", "role", "group", "state", "health", "address", "image",
                             "started", "exit_code", "host"}  # fmt: skip
    assert {slot["node"].split(".")[0] for slot in found["slots"]} == {f"{pool}-execute-1"}
    assert set(found["jobs"]) == {"jobs", "idle", "running", "held", "suspended", "completed",
                                  "removed"}  # fmt: skip
    text = well("status")
    assert plain(text)
    assert text.splitlines()[0].split()[:3] == ["NODE", "ROLE", "STATE"]
    assert "Unclaimed Idle" in text
    assert "Jobs: 0 idle, 0 running, 0 held." in text


def test_ls_and_images(pool: str, image: str) -> None:
    (row,) = json.loads(well("ls", "--json", "--name", pool))
    assert row == {"name": pool, "engine": "docker", "nodes": 3, "running": 3, "executors": 1}
    assert plain(well("ls"))
    images = {row["tag"]: row for row in json.loads(well("image", "ls", "--json"))}
    assert set(images[image]) == {
        "tag", "id", "size", "htcondor_version", "roost_version", "release", "created"
    }  # fmt: skip
    assert images[image]["htcondor_version"].startswith("23.")
    assert image in well("image", "ls")
    bom = json.loads(well("image", "sbom", "--tag", image))
    assert bom["metadata"]["component"]["version"] == images[image]["id"]
    found = {part["name"]: part["version"] for part in bom["components"]}
    assert found["condor"].startswith(images[image]["htcondor_version"])
    assert found["roost"] == images[image]["roost_version"]


def test_health_becomes_healthy(pool: str) -> None:
    def healths() -> set[str]:
        return {node["health"] for node in json.loads(well("status", "--json"))["nodes"]}

    eventually(lambda: healths() == {"healthy"}, 60)


def test_a_terminal_gets_colours_and_nothing_else_does(pool: str) -> None:
    with typing_into([ROOST, "ls"]) as (terminal, process):
        assert "\x1b[" in until(terminal, pool)
        assert process.wait(timeout=30) == 0


# --- doctor ------------------------------------------------------------------------------------


def test_doctor(pool: str) -> None:
    done = roost("doctor", "--json")
    assert done.returncode == 0, done.stdout
    assert all(finding["severity"] != "error" for finding in json.loads(done.stdout))
    assert all(set(finding) == {"severity", "what", "where", "advice"}
               for finding in json.loads(done.stdout))  # fmt: skip


def test_doctor_finds_what_is_wrong(pool: str) -> None:
    stopped, paused = f"{pool}-submit", f"{pool}-execute-1"
    ask("stop", stopped)
    try:
        ask("pause", paused)
        try:
            done = roost("doctor", "--json")
        finally:
            ask("unpause", paused)
        assert done.returncode == 1
        errors = {finding["where"]: finding for finding in json.loads(done.stdout)
                  if finding["severity"] == "error"}  # fmt: skip
        assert stopped in errors
        assert "does not run: exited with code 0" in errors[stopped]["what"]
        assert "`roost up` starts it again" in errors[stopped]["advice"]
        assert paused in errors
        # one sentence where something needs what does not run
        assert "is not running" in roost("q").stderr
        assert "does not run" in refused(roost("exec", "submit", "true"), 1)
        status = roost("status")
        assert status.returncode == 1
        assert f"roost: {stopped} is not running" in status.stderr
    finally:
        well("up")
    eventually(lambda: roost("doctor").returncode == 0, 60, what=lambda: roost("doctor").stdout)


def test_doctor_without_a_pool() -> None:
    done = roost("doctor", "--name", "no-such-pool")
    assert done.returncode == 1
    assert "there is no pool 'no-such-pool'" in done.stdout


# --- into a node -------------------------------------------------------------------------------


def test_exec(pool: str) -> None:
    done = roost("exec", "submit", "--", "sh", "-c", "echo out; echo err >&2; exit 7")
    assert (done.returncode, done.stdout, done.stderr) == (7, "out\n", "err\n")
    assert well("exec", f"{pool}-submit", "hostname") == f"{pool}-submit\n"
    assert well("exec", "submit", "--user", "user", "--", "id", "-un") == "user\n"
    assert well("exec", "-i", "submit", "wc", "-c", stdin="x" * 200_000) == "200000\n"
    assert roost("exec", "submit", "no-such-program").returncode in (126, 127)  # the engine's word
    assert "no node 'sumbit'; did you mean 'submit'?" in refused(roost("exec", "sumbit", "true"))
    # bytes pass as they are
    raw = subprocess.run([ROOST, "exec", "submit", "--", "printf", r"\377\0\n"],
                         capture_output=True, check=True)  # fmt: skip
    assert raw.stdout == b"\xff\0\n"


def test_exec_with_a_terminal(pool: str) -> None:
    with typing_into(
        [ROOST, "exec", "master", "--", "sh", "-c", "test -t 0 && echo yes; exit 5"]
    ) as (
        terminal,
        process,
    ):
        until(terminal, "yes")
        assert process.wait(timeout=30) == 5


def test_shell(pool: str) -> None:
    with typing_into([ROOST, "shell", "--user", "user"]) as (terminal, process):
        os.write(terminal, b"echo $((6 * 7)) $(id -un)@$(hostname)\n")
        until(terminal, f"42 user@{pool}-submit")
        # Ctrl-C is the shell's own, and does not end roost
        os.write(terminal, b"sh -c 'echo started$((1 + 1)); exec sleep 1000'\n")
        until(terminal, "started2")
        os.write(terminal, b"\x03")
        os.write(terminal, b"condor_q -totals; exit 4\n")
        until(terminal, "Total for all users")
        assert process.wait(timeout=30) == 4
    assert "needs a terminal" in refused(roost("shell"))


# --- logs --------------------------------------------------------------------------------------


def test_logs(pool: str) -> None:
    lines = well("logs").splitlines()
    assert {line.split()[0] for line in lines} == set(nodes_of(pool))
    assert plain("\n".join(lines))
    own = well("logs", "master").splitlines()
    assert any("condor_negotiator" in line for line in own)
    assert not any(line.startswith(pool) for line in own)
    negotiator = well("logs", "master", "--daemon", "negotiator").splitlines()
    assert negotiator
    assert {line.split()[0] for line in negotiator} == {"negotiator"}
    assert len(well("logs", "submit", "--tail", "2").splitlines()) == 2
    assert "no node 'nobody'" in refused(roost("logs", "nobody"))


@pytest.mark.parametrize("node", ["submit", None])
def test_logs_that_follow(pool: str, tmp_path: Path, node: str | None) -> None:
    """A line that comes later is shown; Ctrl-C ends it, quietly."""
    argv = [ROOST, "logs", *([node] if node else []), "-f", "--daemon", "schedd", "--tail", "0"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                          start_new_session=True) as following:  # fmt: skip
        assert following.stdout is not None
        assert following.stderr is not None
        try:
            # lines come only once something happens after it began to follow: so, again and again
            write(tmp_path / "a.sub", "executable = /bin/true\nrequest_cpus = 99\nqueue\n")
            deadline = time.monotonic() + 60
            while not select.select([following.stdout], [], [], 0.5)[0]:
                assert time.monotonic() < deadline
                cluster = json.loads(well("submit", tmp_path / "a.sub", "--json"))["cluster"]
                well("rm", str(cluster))
            line = following.stdout.readline()
            assert "schedd | " in line
            assert (line.split()[0] == f"{pool}-submit") == (node is None)
            assert following.poll() is None
        finally:
            os.killpg(following.pid, signal.SIGINT)
        assert following.wait(timeout=30) == 130
        assert "Traceback" not in following.stderr.read()


# --- this machine's own tools ------------------------------------------------------------------


def test_env(pool: str) -> None:
    variables = json.loads(well("env", "--json"))
    assert set(variables) >= {"CONDOR_CONFIG"}
    shell = subprocess.run(
        ["sh", "-c", f'eval "$({ROOST} env)"; printenv CONDOR_CONFIG'],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert shell.stdout.strip() == variables["CONDOR_CONFIG"]
    directory = Path(variables["CONDOR_CONFIG"]).parent
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in directory.iterdir()}
    assert modes["user.key"] == 0o600
    assert "no user 'bob'" in refused(roost("env", "--user", "bob"))


# --- files -------------------------------------------------------------------------------------


def test_schema_accepts_the_examples_and_names_every_key() -> None:
    schema = json.loads(well("schema"))
    check = Draft202012Validator(schema)
    files = sorted(EXAMPLES.rglob("*.yaml"))
    assert files
    for file in files:
        check.validate(yaml.safe_load(file.read_text()))
    assert not check.is_valid({"name": "x", "memmory": 1})
    assert not check.is_valid({"execute": [{"count": -1}]})


def test_render_is_what_up_made(pool: str, tmp_path: Path) -> None:
    rendered = yaml.safe_load(well("render", "compose"))
    labels = {
        service["container_name"]: service["labels"]
        for service in rendered["services"].values()
        if "container_name" in service
    }
    assert set(labels) == {f"{pool}-master", f"{pool}-submit"}
    for name, wanted in labels.items():
        there = json.loads(ask("inspect", "--format", "{{json .Config.Labels}}", name))
        assert {key: there[key] for key in wanted} == wanted
    well("render", "compose", "-o", tmp_path / "out")
    assert yaml.safe_load((tmp_path / "out/compose.yaml").read_text()) == rendered
    assert "is not empty" in refused(roost("render", "compose", "-o", tmp_path / "out"))


# --- taking down -------------------------------------------------------------------------------


def test_down_keeps_the_spool_if_asked_and_is_no_error_twice(tmp_path: Path) -> None:
    with taken_down(fresh("keep")) as name:
        well("up", "--name", name)
        write(tmp_path / "a.sub", "executable = /bin/true\nrequest_cpus = 99\nqueue\n")
        submitted = json.loads(well("submit", tmp_path / "a.sub", "--json", "--name", name))
        assert "its job queue is kept" in well("down", "--keep-spool", "--name", name)
        kept = held(name)
        assert f"{name}-spool" in kept
        assert kept <= set(ask("volume", "ls", "-q").split())  # no node, no network
        well("up", "--name", name)
        assert [job["id"] for job in json.loads(well("q", "--json", "--name", name))] == (
            submitted["jobs"]
        )
        assert well("down", "--name", name) == f"The pool {name} is down.\n"
        assert held(name) == set()
        assert well("down", "--name", name) == f"There is no pool {name}.\n"
