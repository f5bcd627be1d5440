"""The command over the fake engine: what it prints, its exit status, and what it refuses."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from pool_answers import Answers

from roost import cli, engines
from roost.cli.lifecycle import alike
from roost.engines.base import Engine
from roost.errors import EngineUnavailable
from roost.pool import Pool
from roost.security import PoolKeys
from roost.spec import PoolSpec

#: Every command that the issue and the design name.
DOCUMENTED = (
    "up", "down", "ls", "status", "submit", "q", "rm", "why", "scale", "logs", "exec", "shell",
    "doctor", "env", "image", "render", "schema", "wait",
    "join", "approve", "drain", "data", "user", "credential",
)  # fmt: skip


@pytest.fixture
def answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Answers:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    for variable in ("ROOST_POOL", "ROOST_ENGINE", "ROOST_TRACEBACK"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.chdir(tmp_path)
    answers = Answers()
    known: Callable[[str, PoolSpec | None], Engine] = engines.by_name

    def by_name(name: str, spec: PoolSpec | None = None) -> Engine:
        return answers.engine if name in ("docker", "podman") else known(name, spec)

    monkeypatch.setattr(engines, "detect", lambda: answers.engine)
    monkeypatch.setattr(engines, "by_name", by_name)
    return answers


@pytest.fixture
def pool(answers: Answers) -> Answers:
    """A pool is up."""
    assert cli.main(["up", "--executors", "2"]) == 0
    return answers


def test_every_documented_command_is_there() -> None:
    assert sorted(cli.COMMANDS) == sorted(DOCUMENTED)
    for name in DOCUMENTED:
        command = cli.Lazy().get_command(None, name)  # type: ignore[arg-type]
        assert command is not None
        assert command.name == name


@pytest.mark.parametrize("name", DOCUMENTED)
def test_help_of_each(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([name, "--help"]) == 0
    said = capsys.readouterr().out
    assert said.startswith(f"Usage: roost {name}")
    groups = ("image", "render", "schema", "credential", "user", "data")
    options = [] if name in groups else ["--name", "--engine"]
    if name in ("ls", "status", "q", "doctor", "why"):
        options.append("--json")
    assert all(option in said for option in options)


@pytest.mark.parametrize("argv", [[], ["image"], ["render"]], ids=" ".join)
def test_without_a_command_the_help_says_what_there_is(
    argv: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(argv) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith(f"Usage: {' '.join(['roost', *argv])} [OPTIONS] COMMAND")
    assert "\n\nCommands:\n" in said.err


def test_help_is_quick_and_imports_little() -> None:
    code = "import sys, roost.cli; roost.cli.main(['--help']); print(*sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stderr.split())
    assert not loaded & {"pydantic", "rich", "yaml", "cryptography", "roost.pool"}
    began = time.process_time()
    assert cli.main(["--help"]) == 0
    assert time.process_time() - began < 0.3


# --- what it does -------------------------------------------------------------------------------


def test_up_down(answers: Answers, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["up", "--executors", "2"]) == 0
    said = capsys.readouterr()
    assert said.out == "The pool roost is up: 2 executors, on fake.\n"
    assert "\x1b" not in said.err
    assert "running a first job" in said.err
    assert cli.main(["down"]) == 0
    assert not answers.engine.pools()
    assert cli.main(["down"]) == 0
    assert capsys.readouterr().out.endswith("There is no pool roost.\n")


@contextmanager
def at_a_terminal(monkeypatch: pytest.MonkeyPatch, typed: str) -> Iterator[Callable[[], str]]:
    """With a terminal for input and messages; gives what was written to it so far."""
    leader, follower = pty.openpty()
    with (
        os.fdopen(leader, "r+b", buffering=0) as person,
        os.fdopen(os.dup(follower)) as stdin,
        os.fdopen(follower, "w", buffering=1) as stderr,
        monkeypatch.context() as patch,
    ):
        patch.setattr(sys, "stdin", stdin)
        patch.setattr(sys, "stderr", stderr)
        person.write(typed.encode())

        def said() -> str:
            print("<end>", file=stderr)  # a terminal hands on what was written in pieces
            text = b""
            while b"<end>" not in text:
                text += person.read(65536)
            return text.decode()

        yield said


@pytest.mark.parametrize(
    "typed, argv, status, asked",
    [
        ("n\n", [], 1, True),
        ("\n", [], 1, True),
        ("\x04", [], 130, True),
        ("y\n", [], 0, True),
        ("n\n", ["--yes"], 0, False),
        ("n\n", ["--keep-spool"], 0, False),
    ],
)
def test_down_asks_at_a_terminal_where_jobs_are_lost(
    pool: Answers,
    monkeypatch: pytest.MonkeyPatch,
    typed: str,
    argv: list[str],
    status: int,
    asked: bool,
) -> None:
    pool.queued = 3
    keys = PoolKeys("roost").directory
    with at_a_terminal(monkeypatch, typed) as said:
        assert cli.main(["down", *argv]) == status
        text = said()
    question = "The pool roost has 3 jobs in its queue. Delete it all, its keys too? [y/N]"
    assert (question in text) == asked
    assert bool(pool.engine.observe("roost").nodes) == (status != 0)
    assert keys.exists() == (status != 0 or "--keep-spool" in argv)
    assert ("roost: the pool roost stays as it is; --keep-spool keeps" in text) == (status == 1)


def test_down_asks_only_where_something_is_lost(
    pool: Answers, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert Pool.attach().at_stake() == ""
    pool.silent = True
    assert Pool.attach().at_stake() == "a job queue that does not answer now"
    pool.silent, pool.queued = False, 1
    assert Pool.attach().at_stake() == "1 job in its queue"
    assert cli.main(["down", "--keep-spool"]) == 0
    # Nobody can say what is in a queue that was kept.
    assert Pool.attach().at_stake() == "a job queue that does not answer now"
    # A script is not asked.
    assert cli.main(["down"]) == 0
    assert not pool.engine.pools()


@pytest.mark.parametrize("argv", [["status"], ["q"], ["down"], ["up"], ["env"], ["doctor"]])
def test_keys_that_others_may_reach_are_refused(
    pool: Answers, capsys: pytest.CaptureFixture[str], argv: list[str]
) -> None:
    directory = PoolKeys("roost").directory
    directory.chmod(0o755)
    capsys.readouterr()
    assert cli.main(argv) == 2
    said = capsys.readouterr()
    assert said == (
        "",
        f"roost: {directory} is open to others (mode 0755); chmod 700 {directory}\n",
    )
    assert pool.engine.pools() == ["roost"]
    directory.chmod(0o700)
    assert cli.main(["down"]) == 0


def test_up_with_a_file_and_again(answers: Answers, tmp_path: Path) -> None:
    file = tmp_path / "pool.yaml"
    file.write_text("name: physics\nexecute: [{name: cpu, count: 1}, {name: gpu, count: 1}]\n")
    assert cli.main(["up", str(file)]) == 0
    file.write_text(file.read_text().replace("name: gpu, count: 1", "name: gpu, count: 3"))
    assert cli.main(["up", str(file)]) == 0
    nodes = [node.name for node in answers.engine.observe("physics").nodes]
    assert nodes == [
        "physics-cpu-1", "physics-gpu-1", "physics-gpu-2", "physics-gpu-3", "physics-master",
        "physics-submit",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "before, after, environment",
    [(["--name", "a"], [], ""), ([], ["--name", "a"], ""), ([], [], "a")],
)
def test_name_in_three_places(
    answers: Answers,
    monkeypatch: pytest.MonkeyPatch,
    before: list[str],
    after: list[str],
    environment: str,
) -> None:
    monkeypatch.setenv("ROOST_POOL", environment)
    assert cli.main([*before, "up", *after]) == 0
    assert answers.engine.pools() == ["a"]
    assert cli.main([*before, "scale", *after, "2"]) == 0
    assert cli.main([*before, "down", *after]) == 0
    assert answers.engine.pools() == []


LISTINGS = [["ls"], ["status"], ["q"], ["q", "--all"], ["doctor"], ["why", "1"]]


@pytest.mark.parametrize("listing", LISTINGS, ids=" ".join)
def test_listings_as_json(
    pool: Answers, capsys: pytest.CaptureFixture[str], listing: Sequence[str]
) -> None:
    capsys.readouterr()
    cli.main([*listing, "--json"])
    json.loads(capsys.readouterr().out)
    cli.main([*listing])
    assert "\x1b" not in capsys.readouterr().out


def test_ls(pool: Answers, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert cli.main(["ls", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == [
        {"name": "roost", "engine": "fake", "nodes": 4, "running": 4, "executors": 2}
    ]


def test_submit_wait_rm_q(
    pool: Answers, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "a.sub"
    file.write_text("executable=/bin/true\nqueue\n")
    capsys.readouterr()
    assert cli.main(["submit", str(file)]) == 0
    assert capsys.readouterr().out == "1 job submitted as 2; `roost wait 2` waits.\n"
    assert cli.main(["submit", "--json", str(file)]) == 0
    assert json.loads(capsys.readouterr().out) == {"cluster": 3, "jobs": ["3.0"]}
    pool.exit_code = 3
    assert cli.main(["submit", str(file), "--wait", "--user", "user"]) == 1
    assert "ended with exit code 3" in capsys.readouterr().out
    assert cli.main(["q"]) == 0
    assert capsys.readouterr().out == "The queue is empty.\n"
    assert cli.main(["q", "--all"]) == 0
    assert "completed 3" in capsys.readouterr().out
    assert cli.main(["rm", "4"]) == 1
    assert "no job 4 in the queue" in capsys.readouterr().err


def test_a_long_queue_is_summed_up(
    pool: Answers, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    queued = [
        {"ClusterId": cluster, "ProcId": proc, "Owner": "john", "JobStatus": 1 + proc % 2,
         "Cmd": "/home/john/sim", "QDate": 0}
        for cluster in range(1, 106) for proc in range(4)
    ]  # fmt: skip
    asked: list[list[str]] = []

    def text(self: Answers, node: str, argv: list[str]) -> str | None:
        asked.append(argv)
        if argv[:2] != ["condor_q", "-json"]:
            return known(self, node, argv)
        limit = int(argv[argv.index("-limit") + 1]) if "-limit" in argv else len(queued)
        return json.dumps(queued[:limit])

    known = Answers._text
    monkeypatch.setattr(Answers, "_text", text)
    assert cli.main(["q"]) == 0
    head, older, first, *_, last = capsys.readouterr().out.splitlines()
    assert head.split() == ["CLUSTER", "OWNER", "JOBS", "SUBMITTED", "COMMAND"]
    assert older.split() == ["5", "older", "10", "idle,", "10", "running"]
    assert first.split()[:6] == ["6", "john", "2", "idle,", "2", "running"]
    assert last == "420 jobs in 105 submissions; `roost q --each` lists each job."
    # what is asked for is little: a few jobs, then of each what is shown
    wanted = [argv[argv.index("-attributes") + 1] for argv in asked if "condor_q" in argv]
    assert [len(each.split(",")) for each in wanted[-2:]] == [26, 6]
    assert cli.main(["q", "--each"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 421


def test_nodes_that_are_alike_stand_in_one_line() -> None:
    rows = [
        ("", ("p-master", "master", "running", "healthy", "10.0.0.2", "-", "-")),
        *(
            ("cpu", (f"p-cpu-{n}", "execute", "running", "healthy", f"10.0.0.{n}", "Idle", "0/1"))
            for n in range(3, 6)
        ),
        ("cpu", ("p-cpu-6", "execute", "running", "starting", "10.0.0.6", "-", "-")),
    ]
    assert alike(rows) == [
        ["p-master", "master", "running", "healthy", "10.0.0.2", "-", "-"],
        ["3 of cpu", "execute", "running", "healthy", "-", "Idle", "0/1"],
        ["p-cpu-6", "execute", "running", "starting", "10.0.0.6", "-", "-"],
    ]


def test_logs_of_one_and_of_all(pool: Answers, capsys: pytest.CaptureFixture[str]) -> None:
    pool.engine.say("roost-submit", "schedd | 11/22/26 10:00:01 a")
    capsys.readouterr()
    assert cli.main(["logs", "submit", "--tail", "1"]) == 0
    assert capsys.readouterr().out == "schedd | 11/22/26 10:00:01 a\n"
    assert cli.main(["logs", "-f"]) == 0
    assert capsys.readouterr().out == "roost-submit     schedd | 11/22/26 10:00:01 a\n"


def test_exec_gives_the_commands_status(pool: Answers) -> None:
    assert cli.main(["exec", "execute-1", "--user", "user", "--", "false", "-x", "--json"]) == 1
    call = pool.engine.calls[-1]
    assert (call.node, call.argv, call.user) == (
        "roost-execute-1",
        ("false", "-x", "--json"),
        "user",
    )


def test_env_is_for_a_shell(pool: Answers, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert cli.main(["env"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("export CONDOR_CONFIG=/")
    assert all(line.startswith(("export ", "#")) for line in lines)


def test_render_writes_private_files_once(
    answers: Answers, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["render", "compose"]) == 0
    text = capsys.readouterr().out
    assert "services:" in text
    assert not (tmp_path / "state").exists()
    assert cli.main(["render", "compose", "-o", "out"]) == 0
    assert (tmp_path / "out/compose.yaml").read_text() == text
    made = [tmp_path / "out", *(tmp_path / "out").rglob("*")]
    assert {path.name for path in made} >= {"ca.key", "node.key", "node.crt"}
    for path in made:
        if path.is_dir() or path.name in ("ca.key", "node.key"):
            assert path.stat().st_mode & 0o077 == 0, path
    assert cli.main(["render", "compose", "-o", "out"]) == 2
    assert "not empty" in capsys.readouterr().err


def test_schema(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["schema"]) == 0
    assert json.loads(capsys.readouterr().out)["title"] == "pool.yaml"


# --- what it refuses ----------------------------------------------------------------------------

BAD = {
    "token's file": (["data", "login", "lab", "--file", "/nonexistent"], "does not exist"),
    "token without a terminal": (["data", "login", "lab"], "give the token with --file"),
    "token of nobody": (["data", "ls", "--user", "joan"], "no user 'joan'"),
    "no such command": (["upp"], "did you mean 'up'?"),
    "unknown flag": (["up", "--executor", "2"], "--executors"),
    "missing argument": (["submit"], "FILE.sub"),
    "not a number": (["up", "--executors", "many"], "many"),
    "negative count": (["up", "--executors", "-1"], "--executors is -1; the least is 0"),
    "scale: negative": (["scale", "-1"], "'-1' is not a number"),
    "scale: words": (["scale", "cpu=x"], "'cpu=x' is not a number"),
    "scale: unknown group": (["scale", "gpu=2"], "no group 'gpu'; its groups: execute"),
    "no such file": (["up", "absent.yaml"], "absent.yaml: does not exist"),
    "pool's name": (["status", "--name", "../x"], "'../x' is not a pool's name"),
    "no such pool": (["status", "--name", "other"], "no pool 'other'"),
    "no such engine": (["ls", "--engine", "dokcer"], "did you mean 'docker'?"),
    "no such release": (["up", "--release", "trixi"], "did you mean trixie?"),
    "no such node": (["logs", "submti"], "no node 'submti'"),
    "no such submit file": (["submit", "absent.sub"], "absent.sub does not exist"),
    "no job id": (["rm", "seven"], "'seven' is not a job id"),
    "no such user": (["env", "--user", "joan"], "no user 'joan'"),
    "image release": (["image", "build", "--release", "tricksie"], "trixie"),
    "image with": (["image", "build", "--with", "rclon"], "rclone"),
    "image command": (["image", "biuld"], "build"),
    "render what": (["render", "composee"], "compose"),
    "shell without a terminal": (["shell"], "needs a terminal"),
    "negative tail": (["logs", "--tail", "-1"], "-1"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input(pool: Answers, capsys: pytest.CaptureFixture[str], case: str) -> None:
    argv, part = BAD[case]
    before = pool.engine.observe("roost")
    capsys.readouterr()
    assert cli.main(argv) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("roost: ")
    assert said.err.count("\n") == 1
    assert part in said.err
    assert pool.engine.observe("roost") == before
    assert pool.engine.pools() == ["roost"]


def test_all_problems_of_a_file_one_per_line(
    answers: Answers, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "p.yaml").write_text("nmae: x\nexecute: [{count: -1}]\n")
    assert cli.main(["up", "p.yaml"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "roost: p.yaml has 2 problems:"
    assert len(lines) == 3


def test_failures_are_one_sentence(
    answers: Answers, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    answers.engine.foreign = ("roost-master",)
    assert cli.main(["up"]) == 1
    assert capsys.readouterr().err.splitlines()[-1].startswith("roost: the node roost-master")
    assert answers.engine.pools() == []

    def absent() -> Engine:
        raise EngineUnavailable("docker does not answer", advice="start it")

    monkeypatch.setattr(engines, "detect", absent)
    assert cli.main(["ls"]) == 1
    assert capsys.readouterr().err == "roost: docker does not answer; start it\n"


@pytest.mark.parametrize(
    "error, status, said",
    [
        (KeyboardInterrupt(), 130, "interrupted"),
        (cli._Terminated(), 143, "stopped by SIGTERM"),
        (ZeroDivisionError("x\ny"), 1, "unexpected ZeroDivisionError: x; ROOST_TRACEBACK=1"),
    ],
)
def test_never_a_traceback(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException,
    status: int,
    said: str,
) -> None:
    monkeypatch.delenv("ROOST_TRACEBACK", raising=False)

    def fail() -> None:
        raise error

    assert cli.guarded(fail) == status
    err = capsys.readouterr().err
    assert err.startswith(f"roost: {said}")
    assert err.count("\n") == 1


def test_sigterm_during_up_cleans_up(
    answers: Answers, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answers.engine, "has_image", lambda _: os.kill(os.getpid(), signal.SIGTERM))
    assert cli.main(["up"]) == 143
    assert capsys.readouterr().err.strip() == "roost: stopped by SIGTERM"
    assert answers.engine.pools() == []
