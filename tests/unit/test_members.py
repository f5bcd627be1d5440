"""Who joins a pool: what the master is asked, and the line for another host."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from roost._run import Completed
from roost.engines.fake import FakeEngine
from roost.errors import BadInput, PoolNotReady, RoostError
from roost.members import Members, command
from roost.plan import ObservedNode
from roost.security import Secret
from roost_node import tokens

TOKEN = tokens.new("lab", "execute", "ab" * 32, 3600)


def node(state: str = "running", address: str = "10.0.0.2") -> ObservedNode:
    return ObservedNode("lab-master", "master", "master", "roost/htcondor:trixie", "",
                        state, "healthy", address)  # type: ignore[arg-type]  # fmt: skip


class Master(FakeEngine):
    """Answers what roost-node in the master would."""

    def __init__(self, status: int = 0, out: str = "", err: str = "") -> None:
        super().__init__()
        self.asked: list[tuple[str, ...]] = []
        self._completed = (status, out.encode(), err)

    def exec(self, ref: object, argv: Sequence[str], **_: object) -> Completed:
        self.asked.append(tuple(argv))
        return Completed(tuple(argv), *self._completed)


def test_the_line_runs_in_a_shell_and_shows_the_token_to_nobody(tmp_path: Path) -> None:
    engine = Master(out=TOKEN.text + "\n")
    asked = Members(engine, "lab", [node()]).invite("execute", expires="10m", uses=1)
    assert engine.asked == [
        ("roost-node", "join-token", "execute", "--expires", "10m", "--uses", "1")
    ]
    assert TOKEN.text not in repr(asked)
    docker = tmp_path / "bin" / "docker"
    docker.parent.mkdir()
    docker.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > {tmp_path}/argv\n')
    docker.chmod(0o755)
    found = {"PATH": f"{docker.parent}:/usr/bin:/bin", "PWD": str(tmp_path)}
    subprocess.run(["sh", "-c", asked.line], cwd=tmp_path, check=True, env=found)
    argv = (tmp_path / "argv").read_text()
    assert TOKEN.text not in argv
    assert argv.split()[-5:] == ["roost/htcondor:trixie", "-e", "10.0.0.2", "-S", "/run/token"]
    assert f"--hostname\n{asked.node}\n" in argv
    file = tmp_path / f"{asked.node}.token"
    assert file.read_text().strip() == TOKEN.text
    assert file.stat().st_mode & 0o777 == 0o600
    assert f"{file}:/run/token:ro" in argv


def test_the_name_on_the_line_is_not_one_that_waits_for_approval() -> None:
    lab = Members(Master(out=TOKEN.text), "lab", [node()]).invite("execute")
    own = Members(Master(out=TOKEN.text), "execute", [node()]).invite("execute")
    assert lab.node == f"execute-{TOKEN.id[:6]}"
    assert not own.node.startswith("execute-")


def test_several_nodes_get_names_from_their_engine() -> None:
    asked = Members(Master(out=TOKEN.text), "lab", [node()]).invite("execute", uses=3)
    assert asked.node == ""
    assert "--hostname" not in asked.line
    assert "--name" not in command("execute", "m", "i", "", Secret(b"t"))


@pytest.mark.parametrize(
    ("role", "uses", "says"),
    [
        ("master", 1, "cannot join as 'master'"),
        ("", 1, "submit or execute"),
        ("execute", 0, "0 uses"),
    ],
)
def test_what_cannot_be_asked(role: str, uses: int, says: str) -> None:
    with pytest.raises(BadInput, match=says):
        Members(Master(), "lab", [node()]).invite(role, uses=uses)


def test_a_master_that_is_not_there() -> None:
    with pytest.raises(PoolNotReady, match="has no master"):
        Members(Master(), "lab", []).waiting()
    with pytest.raises(PoolNotReady, match="it is exited"):
        Members(Master(), "lab", [node("exited")]).waiting()
    with pytest.raises(PoolNotReady, match="--address"):
        Members(Master(), "lab", [node(address="")]).invite("execute")


def test_who_waits_and_what_is_done() -> None:
    row = {"id": "e246227c0a94a7a4", "name": "ap-x", "role": "submit", "address": "10.0.0.9",
           "fingerprint": "67:1d", "waits": 8, "note": ""}  # fmt: skip
    (waiting,) = Members(Master(out=json.dumps([row])), "lab", [node()]).waiting()
    assert (waiting.id, waiting.waits) == (row["id"], 8)
    engine = Master(out="approved ap-x\n")
    assert Members(engine, "lab", [node()]).approve(["-x", "b"]) == ("approved ap-x",)
    assert engine.asked == [("roost-node", "approve", "--", "-x", "b")]


def test_the_masters_sentence_is_the_users() -> None:
    bad = Master(2, err="roost-node: no request 'x' waits\n")
    with pytest.raises(BadInput, match=r"^no request 'x' waits$"):
        Members(bad, "lab", [node()]).approve(["x"])
    with pytest.raises(RoostError, match="it said nothing") as caught:
        Members(Master(3), "lab", [node()]).waiting()
    assert caught.value.exit_status == 1
