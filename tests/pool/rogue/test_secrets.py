"""Every secret that a pool holds, looked for wherever somebody else could read it.

Each search has a control: the same search of the same kinds of places finds a key that was planted
in a container made for that.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import subprocess
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from node_bench import Containers, Node, docker, eventually, healthy
from roost_bench import at_home, fresh, refused, roost, taken_down, well, write

from roost_node import pki

pytestmark = pytest.mark.engine

#: A secret's name → the forms in which it could be seen.
Secrets = dict[str, tuple[bytes, ...]]

#: Runs beside a node's processes, because even its own root may not look into all of them.
LOOK: Final = """\
import json
from pathlib import Path
found, KINDS = [], ("environ", "cmdline")
for there in Path("/proc").glob("[0-9]*"):
    try:
        status = dict(line.split(":\\t", 1) for line in (there / "status").open())
        row = {kind: (there / kind).read_bytes().decode("latin-1") for kind in KINDS}
    except (FileNotFoundError, ProcessLookupError):
        continue
    found.append({"name": status["Name"].strip(), "uid": int(status["Uid"].split()[0]), **row})
print(json.dumps(found))
"""
#: The files of a node that hold a private key, with mode and owner; programs have some for tests.
KEY_FILES: Final = """\
find / \\( -path /proc -o -path /sys \\) -prune -o -type f -print0 2>/dev/null |
xargs -0 grep -lIE -e '^-----BEGIN [A-Z ]*PRIVATE KEY-----$' 2>/dev/null |
xargs stat -c '%n %a %U'"""
#: A line of the record that HTCondor's daemons hand their children.
PRIVATE: Final = re.compile(r"SessionKey:([^#\s]+)#|CONDOR_PRIVATE_SHARED_PORT_COOKIE=([^\x00]+)")


def key_forms(pem: bytes) -> tuple[bytes, ...]:
    """A private key's: the lines of its PEM in which the number stands, and the number itself."""
    key = load_pem_private_key(pem, None)
    assert isinstance(key, EllipticCurvePrivateKey)
    number = key.private_numbers().private_value.to_bytes(32, "big")
    return (*pem.splitlines()[1:3], number, number.hex().encode())


def seen(content: bytes | str, secrets: Secrets) -> set[str]:
    """Which of the secrets stand in it."""
    data = content if isinstance(content, bytes) else content.encode()
    return {name for name, forms in secrets.items() if any(form in data for form in forms)}


def processes(node: Node) -> list[dict[str, Any]]:
    """Every process of a node, with its environment and command line."""
    text = docker(
        "run", "--rm", "--pid", f"container:{node.name}", "--network", "none", "--user", "0",
        "--cap-add", "SYS_PTRACE", "--entrypoint", "python3", node.inspect()["Config"]["Image"],
        "-c", LOOK,
    )  # fmt: skip
    found: list[dict[str, Any]] = json.loads(text)
    return found


@dataclass
class Scene:
    """A pool with a node that joined by token, a user's certificate and a job that runs."""

    name: str
    home: Path
    nodes: Mapping[str, Node]
    leaky: Node
    """The control: a container that shows its secret everywhere."""
    events: Path
    """What Docker told everybody who listens, since before the pool began."""
    asked: Path
    """What `docker` was called with, and in which environment."""
    secrets: Secrets
    planted: Secrets
    inherited: Secrets
    """What HTCondor's daemons hand each other in their environment."""
    processes: Mapping[str, list[dict[str, Any]]]


@pytest.fixture(scope="module")
def scene(
    image: str, shared: Containers, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Scene]:
    directory = tmp_path_factory.mktemp("secrets")
    asked = write(directory / "asked", "")
    (bin := directory / "bin").mkdir()
    real = shutil.which("docker")
    write(
        bin / "docker",
        f'#!/bin/sh\n{{ printf "%s\\n" "$*"; env; }} >> {asked}\nexec {real} "$@"\n', 0o755,
    )  # fmt: skip
    pem = pki.new_key()
    leaky = shared.run(
        "leaky", "-c", 'echo "$LEAK"; sleep 600; true "$0"', pem.decode(),
        options=["-e", f"LEAK={pem.decode()}", "--entrypoint", "sh"],
    )  # fmt: skip
    eventually(leaky.lines, 20)
    with (
        listening(directory / "events", leaky, pem.decode()) as events,
        at_home(directory) as home,
        taken_down(fresh("secrets")) as name,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setenv("PATH", str(bin), prepend=os.pathsep)
        patch.setenv("ROOST_POOL", name)
        well("up")
        well("env")
        work = write(
            directory / "job.sub",
            "executable = /bin/sleep\ntransfer_executable = false\narguments = 600\n"
            "should_transfer_files = YES\nqueue\n",
        )
        well("submit", work)
        token = json.loads(well("join", "execute", "--json"))
        text = str(re.search(r"roost-join\.v1\.\S+", token["line"])[0])  # type: ignore[index]
        file = write(directory / "token", f"{text}\n", 0o600)
        joined = shared.run(
            "joined", "-e", f"{name}-master", "-S", "/run/token",
            options=["--network", name, "-v", f"{file}:/run/token:ro"],
        )  # fmt: skip
        healthy(joined)
        nodes = {role: Node(f"{name}-{role}") for role in ("master", "submit", "execute-1")}
        nodes["joined"] = joined

        def with_the_job() -> dict[str, list[dict[str, Any]]]:
            found = {role: processes(node) for role, node in nodes.items()}
            rows = [row for each in found.values() for row in each if row["name"] == "sleep"]
            return found if rows else {}

        alive = eventually(with_the_job, 90, *nodes.values())
        handed = {
            value
            for found in alive.values() for row in found
            for pair in PRIVATE.findall(row["environ"]) for value in pair if value
        }  # fmt: skip
        yield Scene(
            name, home / name, nodes, leaky, events, asked,
            secrets=collected(home / name, nodes) | {
                "join token": (text.encode(), text.rpartition(".")[2].encode())
            },
            planted={"planted": key_forms(pem)},
            inherited={f"of HTCondor {n}": (each.encode(),) for n, each in enumerate(handed)},
            processes=alive,
        )  # fmt: skip
        shared.discard(joined)  # or the network could not go


@contextmanager
def listening(to: Path, leaky: Node, secret: str) -> Iterator[Path]:
    """All that Docker says meanwhile, from the moment on at which it is heard."""
    with to.open("w") as file:
        argv = ["docker", "events", "--format", "{{json .}}"]
        with subprocess.Popen(argv, stdout=file) as listener:
            try:

                def heard() -> int:
                    docker("exec", leaky.name, "true", secret)
                    return to.stat().st_size

                eventually(heard, 30)
                yield to
            finally:
                listener.terminate()


def collected(state: Path, nodes: Mapping[str, Node]) -> Secrets:
    """The private keys on this machine and in the nodes."""
    found = {
        f"here: {path.relative_to(state)}": key_forms(path.read_bytes())
        for path in state.rglob("*.key")
    }
    for role, node in nodes.items():
        for path in ("ca.key", "node.key", "reader.key"):
            status, text = node.tried(f"cat /var/lib/roost/{path}")
            if status == 0:
                found[f"{role}: {path}"] = key_forms(text.encode())
    return found


def test_all_secrets_are_known(scene: Scene) -> None:
    """The searches below look for these; the pool's key is on this machine and on the master."""
    assert set(scene.secrets) == {
        "here: ca.key", "here: users/user.key", "master: ca.key", "master: node.key",
        "submit: node.key", "submit: reader.key", "execute-1: node.key", "joined: node.key",
        "join token",
    }  # fmt: skip
    assert scene.secrets["here: ca.key"] == scene.secrets["master: ca.key"]
    assert len(set(scene.secrets.values())) == len(scene.secrets) - 1
    assert len(scene.inherited) > 10


def test_the_engine_shows_none(scene: Scene, image: str) -> None:
    def shown(nodes: Sequence[str], *more: str) -> dict[str, str]:
        events = scene.events.read_text().splitlines()
        return {
            "inspect": docker("inspect", *nodes, *more),
            "logs": "".join("\n".join(Node(node).lines()) for node in nodes),
            "events": "\n".join(line for line in events if any(node in line for node in nodes)),
        }

    for place, text in shown([scene.leaky.name]).items():
        assert seen(text, scene.planted) == {"planted"}, f"the control does not hold: {place}"
    label = ("--filter", f"label=roost.pool={scene.name}", "--format", "{{.Name}}")
    things = [scene.name, *docker("volume", "ls", *label).split()]
    assert len(things) > 3
    nodes = [node.name for node in scene.nodes.values()]
    said = shown(nodes, *things, image)
    assert "exec_create" in said["events"]
    for place, text in said.items():
        assert seen(text, scene.secrets | scene.inherited) == set(), place
    # What roost has asked Docker for, word by word, and with which environment.
    docker("exec", scene.leaky.name, "true", str(scene.planted["planted"][0], "ascii"))
    asked = scene.asked.read_bytes()
    assert f"create --name {scene.name}-master".encode() in asked
    assert seen(asked, scene.planted) == {"planted"}
    assert seen(asked, scene.secrets | scene.inherited) == set()


def test_no_process_shows_any(scene: Scene) -> None:
    for kind in ("environ", "cmdline"):
        shows = "".join(row[kind] for row in processes(scene.leaky))
        assert seen(shows, scene.planted) == {"planted"}, f"the control does not hold: {kind}"
    for role, found in scene.processes.items():
        assert {row["name"] for row in found} >= {"tini", "condor_master"}, role
        for row in found:
            assert seen(row["cmdline"] + row["environ"], scene.secrets) == set(), (role, row)
            assert seen(row["cmdline"], scene.inherited) == set(), (role, row)
            # HTCondor hands its daemons the keys of their sessions so: root's and condor's eyes
            # alone may see them there, never a job's or a user's.
            if seen(row["environ"], scene.inherited):
                assert row["name"].startswith("condor_"), (role, row)
                assert row["uid"] in (0, 100), (role, row)
    (job,) = [row for found in scene.processes.values() for row in found if row["name"] == "sleep"]
    assert job["uid"] > 30000


def test_logs_in_the_nodes_hold_none(scene: Scene) -> None:
    read = "cat /var/log/condor/* /var/log/condor/*/* 2>/dev/null; true"
    for role, node in scene.nodes.items():
        text = node.sh(read)
        assert "condor_master" in text, role
        assert seen(text, scene.secrets | scene.inherited) == set(), role
    node = scene.nodes["submit"]
    pem = "\n".join(str(form, "ascii") for form in scene.planted["planted"][:2])
    node.sh("cat > /var/log/condor/planted", stdin=pem)
    assert seen(node.sh(read), scene.planted) == {"planted"}
    node.sh("rm /var/log/condor/planted")


def test_the_command_says_none(scene: Scene, tmp_path: Path) -> None:
    # Where a token is asked for it is shown, and the search finds it.
    shown = json.loads(well("join", "execute", "--json"))["line"]
    assert seen(shown, {"token": (b"roost-join.v1.",)}) == {"token"}
    listings = [
        ["ls"], ["status"], ["q"], ["q", "--all"], ["doctor"], ["env"], ["credential", "ls"],
        ["approve", "--list"], ["image", "ls"], ["why", "2"],
    ]  # fmt: skip
    for argv in listings:
        done = roost(*argv, "--json")
        assert json.loads(done.stdout) is not None
        assert seen(done.stdout + done.stderr, scene.secrets | scene.inherited) == set(), argv
    assert seen(well("logs") + well("render", "compose"), scene.secrets | scene.inherited) == set()
    # Keys that are damaged are named, not shown, in a traceback neither.
    for damage in (b"", b"-----BEGIN RUBBISH-----\n"):
        state = tmp_path / f"state{len(damage)}"
        shutil.copytree(scene.home, state / "roost" / scene.name)
        key = state / "roost" / scene.name / "ca.key"
        lines = key.read_bytes().splitlines(keepends=True)
        key.write_bytes(damage + b"".join(lines[1:]))
        env = {"XDG_STATE_HOME": str(state)}
        done = roost("env", env=env)
        assert "ca.key is not an unencrypted private key in PEM" in refused(done)
        said = done.stderr + roost("env", env=env | {"ROOST_TRACEBACK": "1"}).stderr
        assert "Traceback" in said
        assert seen(said, scene.secrets) == set()


def test_keys_are_their_owners_alone(scene: Scene) -> None:
    """In the nodes, wherever a key is; and here."""
    at = "/var/lib/roost"
    expected = {
        "master": {f"{at}/ca.key 600 condor", f"{at}/node.key 600 condor"},
        # The reader's is for every account there: it may do nothing but read.
        "submit": {f"{at}/node.key 600 root", f"{at}/reader.key 644 root"},
        "execute-1": {f"{at}/node.key 600 root"},
        "joined": {f"{at}/node.key 600 root"},
    }
    for role, node in scene.nodes.items():
        assert set(node.sh(KEY_FILES).splitlines()) == expected[role]
    for path in (scene.home, *scene.home.rglob("*")):
        mode = stat.S_IMODE(path.lstat().st_mode)
        if path.is_dir():
            assert mode == 0o700, path
        else:
            assert mode == (0o644 if path.suffix == ".crt" and path.parent.name != "issued"
                            else 0o600), path  # fmt: skip


def test_a_state_directory_that_others_may_enter_is_refused(scene: Scene) -> None:
    well("status")
    scene.home.chmod(0o750)
    try:
        for argv in (["status"], ["up"], ["down"], ["join", "execute"]):
            said = refused(roost(*argv))
            assert said.startswith(f"{scene.home} is open to others (mode 0750); chmod 700 "), said
    finally:
        scene.home.chmod(0o700)
    well("status")


def test_the_image_holds_no_key(scene: Scene, image: str, tmp_path: Path) -> None:
    """No layer of it, and no step of its history; a layer with a key in it is the control."""
    pem = write(tmp_path / "planted", pki.new_key().decode())
    bad = f"{scene.leaky.name}:bad"
    docker("cp", str(pem), f"{scene.leaky.name}:/srv/planted")
    docker("commit", "--change", f"LABEL leak={pem.read_text().splitlines()[1]}",
           scene.leaky.name, bad)  # fmt: skip
    try:
        subprocess.run(["docker", "save", "-o", tmp_path / "both", image, bad], check=True)
        forms = {"planted": key_forms(pem.read_bytes())}
        assert seen(docker("inspect", bad), forms) == {"planted"}
        history = docker("history", "--no-trunc", image) + docker("inspect", image)
        assert "roost_node" in history
        assert seen(history, scene.secrets | forms) == set()
    finally:
        docker("rmi", bad)
    with tarfile.open(tmp_path / "both") as saved:
        listed = json.loads(saved.extractfile("manifest.json").read())  # type: ignore[union-attr]
        layers = {entry["RepoTags"][0]: set(entry["Layers"]) for entry in listed}
        held = {layer: keys_in(saved, layer) for layer in set.union(*layers.values())}
    found = {name: {key for each in there for key in held[each]} for name, there in layers.items()}
    assert found == {image: set(), bad: {"srv/planted"}}


def keys_in(saved: tarfile.TarFile, layer: str) -> set[str]:
    """The files of a layer that hold a private key; programs and libraries have some for tests."""
    body = re.compile(rb"-----BEGIN [A-Z ]*PRIVATE KEY-----\s+[A-Za-z0-9+/=]{40}")
    found = set()
    with tarfile.open(fileobj=saved.extractfile(layer)) as files:
        for entry in files:
            if entry.isfile():
                content = files.extractfile(entry).read()  # type: ignore[union-attr]
                if not content.startswith(b"\x7fELF") and body.search(content):
                    found.add(entry.name)
    return found
