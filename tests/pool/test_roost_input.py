"""What `roost` refuses: one sentence, the right exit status, and nothing left behind."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from roost_bench import ROOST, at_home, fresh, held, refused, roost, taken_down, write

pytestmark = pytest.mark.engine


@pytest.fixture(autouse=True)
def home(tmp_path: Path) -> Iterator[Path]:
    """Nothing may be made in it."""
    with at_home(tmp_path / "state") as home:
        yield home
        assert not list(home.glob("*"))


@pytest.mark.parametrize(
    "argv, said",
    [
        (["frobnicate"], "command 'frobnicate' is unknown; `roost --help` lists the commands"),
        (["statsu"], "command 'statsu' is unknown; did you mean 'status'?"),
        (["status", "--bogus"], "no such option '--bogus'; `roost status --help`"),
        (["up", "--executors", "-1"], "--executors is -1; the least is 0"),
        (["up", "--executors", "many"], "'many' is not a valid integer"),
        (["up", "--executors", "1001"], "--executors is 1001; the most is 1000"),
        (["up", "--cpus", "-2"], "--cpus is -2.0; the least is 0.01"),
        (["up", "--memory", "-1GiB"], "--memory is '-1GiB', not a size; write it as"),
        (["up", "--memory", "1"], "--memory is 1, in bytes if no unit stands there; the least is"),
        (["up", "--release", "trixi"], "--release is 'trixi'; did you mean trixie?"),
        (["up", "--network", "host"], "--network is 'host', not a network where nodes find"),
        (["up", "--name", "Physics"], "--name is 'Physics'; use a-z, 0-9 and -"),
        (["up", "--engine", "dokcer"], "--engine is 'dokcer'; did you mean docker?"),
        (["up", "none.yaml"], "none.yaml: does not exist; give the path of a pool file"),
        (["up", "."], "is a directory"),
        (["ls", "--engine", "dokcer"], "the engine 'dokcer' is unknown; did you mean 'docker'?"),
        (["status", "--name", "no-such"], "there is no pool 'no-such' on docker"),
        (["status", "--name", "No"], "'No' is not a pool's name; use a-z"),
        (["scale", "3", "--name", "no-such"], "there is no pool 'no-such'"),
        (["submit", "a.sub", "--name", "no-such"], "there is no pool 'no-such'"),
        (["image", "build", "--release", "trixi"], "did you mean trixie?"),
        (["render", "compsoe"], "compose"),
        (["render", "compose", "none.yaml"], "none.yaml: does not exist"),
        (["exec", "submit"], "missing argument 'COMMAND...'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_one_sentence(argv: Sequence[str], said: str, tmp_path: Path) -> None:
    assert said in refused(roost(*argv, cwd=tmp_path))


def test_every_problem_of_a_pool_file_at_once(tmp_path: Path) -> None:
    file = write(tmp_path / "pool.yaml", """\
name: Not A Name
submit: {users: [root]}
execute:
  - {name: cpu, count: -1, memmory: 2GiB}
  - {name: cpu, cpus: 0}
colour: red
""")  # fmt: skip
    done = roost("up", file)
    assert done.returncode == 2
    head, *problems = done.stderr.splitlines()
    assert head == f"roost: {file} has {len(problems)} problems:"
    for line, words in ((1, "name is 'Not A Name'"), (2, "submit.users[0] is 'root'"),
                        (4, "execute[0].count is -1; the least is 0"),
                        (4, "execute[0].memmory is unknown; did you mean memory?"),
                        (5, "execute[1].cpus is 0"), (6, "colour is unknown")):  # fmt: skip
        assert [said for said in problems if said.startswith(f"  line {line}: {words}")], problems


@pytest.mark.parametrize("text", ["", "- a\n- b\n", "name: [\n", "name: a\nname: b\n", "\0"])
def test_a_pool_file_that_is_none(tmp_path: Path, text: str) -> None:
    file = write(tmp_path / "pool.yaml", text)
    assert refused(roost("up", file)).startswith(f"{file}: ")


# --- the engine --------------------------------------------------------------------------------

ASKING = (["up"], ["ls"], ["status"], ["down"], ["submit", "a.sub"], ["image", "ls"],
          ["image", "build"])  # fmt: skip


@pytest.mark.parametrize("argv", ASKING, ids=" ".join)
def test_an_engine_that_does_not_run(argv: list[str], tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "dead.sock"))  # and nobody listens
    env = {"DOCKER_HOST": f"unix://{tmp_path}/dead.sock"}
    said = refused(roost(*argv, "--engine", "docker", env=env), 1)
    assert "Docker is installed but not running; start it with" in said


def test_no_engine_at_all(tmp_path: Path) -> None:
    said = refused(roost("ls", env={"PATH": str(tmp_path)}), 1)
    assert said.startswith("no container engine answers: Docker is not installed, Podman is not")
    assert "apt install docker.io" in said
    said = refused(roost("up", "--engine", "podman", env={"PATH": str(tmp_path)}), 1)
    assert said.startswith("Podman is not installed; install it")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
@pytest.mark.parametrize("argv", [["up"], ["ls"], ["image", "build"]], ids=" ".join)
def test_an_engine_that_may_not_be_used(argv: list[str], tmp_path: Path) -> None:
    """As a user who is not in the group docker."""
    assert shutil.which("setpriv")
    program = "import sys; from roost.cli import main; sys.exit(main(sys.argv[1:]))"
    done = subprocess.run(
        ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups",
         sys.executable, "-c", program, *argv, "--engine", "docker"],
        env=os.environ | {"HOME": "/nonexistent", "XDG_STATE_HOME": "/nonexistent"},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    said = refused(done, 1)
    assert said.startswith("Docker is running but you may not use it; join its group with")


def test_a_disk_that_is_full(tmp_path: Path) -> None:
    """The build's own words, as Docker passes them on, through the code that reads them."""
    (tmp_path / "bin").mkdir()
    write(tmp_path / "bin/docker", f"""\
#!/bin/sh
case "$1" in
build)
    echo 'Step 3/9 : RUN ./install.sh'
    echo 'dpkg: error processing archive: cannot copy extracted data: write failed' \\
         '(No space left on device)'
    exit 1;;
esac
PATH={os.environ["PATH"]} exec docker "$@"
""", 0o755)  # fmt: skip
    env = {"PATH": f"{tmp_path}/bin:{os.environ['PATH']}"}
    done = roost("image", "build", "--tag", "roost/never:made", "--engine", "docker", env=env)
    assert "no space is left where docker keeps its images; make room there" in refused(done, 1)
    have = subprocess.run(["docker", "image", "inspect", "roost/never:made"],
                          capture_output=True, check=False)  # fmt: skip
    assert have.returncode != 0


def test_a_disk_that_is_full_while_a_node_is_made(image: str, tmp_path: Path) -> None:
    name = fresh("full")
    (tmp_path / "bin").mkdir()
    write(tmp_path / "bin/docker", f"""\
#!/bin/sh
case "$*" in
create*-submit*)
    echo 'Error response from daemon: mkdir /var/lib/docker/x: no space left on device' >&2
    exit 1;;
esac
PATH={os.environ["PATH"]} exec docker "$@"
""", 0o755)  # fmt: skip
    with taken_down(name):
        env = {"PATH": f"{tmp_path}/bin:{os.environ['PATH']}"}
        said = refused(roost("up", "--name", name, "--engine", "docker", env=env), 1)
        assert said.startswith("no space is left where Docker keeps its data; free some")
        assert held(name) == set()


def test_output_that_nobody_reads() -> None:
    done = subprocess.run(["sh", "-c", f"{ROOST} schema | head -n 1"], capture_output=True,
                          text=True, check=False)  # fmt: skip
    assert (done.stdout, done.stderr) == ("{\n", "")
