"""The pool's authority on the user's machine."""

from __future__ import annotations

import multiprocessing
import os
import stat
from pathlib import Path

import pytest
from admission import Candidate, Master

from roost.errors import BadInput
from roost.security import PoolKeys, Secret, state_home
from roost_node import pki
from roost_node.join import Identity, ensure_identity
from roost_node.vocab import Role


@pytest.fixture
def keys(tmp_path: Path) -> PoolKeys:
    return PoolKeys("physics", tmp_path / "roost")


def test_a_secret_does_not_show_itself() -> None:
    secret = Secret(b"hunter2")
    assert secret.reveal() == b"hunter2"
    for shown in (repr(secret), str(secret), f"{secret!r}", repr({"key": secret})):
        assert "hunter2" not in shown


def test_where_it_keeps_things(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", "/somewhere")
    assert PoolKeys("physics").directory == Path("/somewhere/roost/physics")
    for ignored in ("", "relative/path"):
        monkeypatch.setenv("XDG_STATE_HOME", ignored)
        assert state_home() == Path.home() / ".local" / "state" / "roost"


@pytest.mark.parametrize(
    ("role", "more"),
    [("master", {"ca.key"}), ("submit", {"reader.crt", "reader.key"}), ("execute", set())],
)
def test_each_role_gets_what_it_needs_and_no_more(
    keys: PoolKeys, tmp_path: Path, role: Role, more: set[str]
) -> None:
    files = keys.node_files(role, "n1")
    assert set(files) == {"ca.crt", "node.crt", "node.key"} | more
    assert "PRIVATE" not in repr(files)
    state = tmp_path / "state"
    state.mkdir()
    for name, secret in files.items():
        (state / name).write_bytes(secret.reveal())
        (state / name).chmod(0o600)
    found = ensure_identity(role, "n1", "roost", "m", None, state, print)
    assert found == Identity("physics", role, "n1", "n1" if role == "master" else "m")


def test_the_authoritys_key_stays_with_one_of_two_masters(keys: PoolKeys) -> None:
    assert "ca.key" in keys.node_files("master", "physics-master")
    assert set(keys.node_files("master", "physics-master-2")) == {"ca.crt", "node.crt", "node.key"}


def test_nodes_share_the_authority_and_nothing_else(keys: PoolKeys, tmp_path: Path) -> None:
    one = keys.node_files("execute", "n1")
    two = PoolKeys("physics", tmp_path / "roost").node_files("execute", "n1")
    assert one["ca.crt"].reveal() == two["ca.crt"].reveal()
    assert one["node.key"].reveal() != two["node.key"].reveal()
    other = PoolKeys("biology", tmp_path / "roost").node_files("execute", "n1")
    assert other["ca.crt"].reveal() != one["ca.crt"].reveal()


def test_everything_is_closed_to_others(keys: PoolKeys) -> None:
    keys.write_user("john")
    assert stat.S_IMODE(keys.directory.stat().st_mode) == 0o700
    assert stat.S_IMODE((keys.directory / "ca.key").stat().st_mode) == 0o600
    assert stat.S_IMODE((keys.directory / "users").stat().st_mode) == 0o700
    assert stat.S_IMODE((keys.directory / "users" / "john.key").stat().st_mode) == 0o600


def test_a_user_keeps_one_certificate(keys: PoolKeys) -> None:
    first = keys.write_user("john")
    cert, key = first.certificate.read_bytes(), first.key.read_bytes()
    assert pki.verify(first.ca.read_bytes(), cert, key, "john") == "physics"
    assert keys.write_user("john") == first
    assert first.certificate.read_bytes() == cert
    files = keys.user_files("john")
    assert set(files) == {"ca.crt", "john.crt", "john.key"}
    assert files["john.crt"].reveal() == cert


def test_a_users_certificate_is_made_anew_when_it_does_not_serve(keys: PoolKeys) -> None:
    there = keys.write_user("john")
    for break_it in (
        there.key.unlink,
        lambda: there.key.write_bytes(pki.new_key()),
        lambda: there.certificate.write_bytes(b"x"),
        lambda: there.certificate.write_bytes(
            pki.sign_user(
                (keys.directory / "ca.key").read_bytes(), there.ca.read_bytes(),
                there.key.read_bytes(), "john", days=0,
            )
        ),
    ):  # fmt: skip
        break_it()
        before = there.certificate.read_bytes()
        keys.write_user("john")
        assert there.certificate.read_bytes() != before
        pki.verify(
            there.ca.read_bytes(), there.certificate.read_bytes(), there.key.read_bytes(), "john"
        )


@pytest.mark.parametrize("name", ["exec-x", "reader", "../x", "root", ""])
def test_users_with_names_of_nodes(keys: PoolKeys, name: str) -> None:
    with pytest.raises(BadInput) as caught:
        keys.write_user(name)
    assert caught.value.exit_status == 2


@pytest.mark.parametrize("mode", [0o750, 0o705, 0o777])
def test_a_directory_open_to_others_is_refused(keys: PoolKeys, mode: int) -> None:
    keys.node_files("execute", "n1")
    keys.directory.chmod(mode)
    with pytest.raises(BadInput, match="chmod 700"):
        keys.node_files("execute", "n1")
    with pytest.raises(BadInput, match="chmod 700"):
        keys.forget()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
def test_somebody_elses_directory_is_refused(keys: PoolKeys) -> None:
    keys.node_files("execute", "n1")
    os.chown(keys.directory, 12345, 12345)
    with pytest.raises(BadInput, match="belongs to user 12345"):
        keys.node_files("execute", "n1")


def test_a_link_in_its_place_is_refused(keys: PoolKeys, tmp_path: Path) -> None:
    keys.directory.parent.mkdir()
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    keys.directory.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BadInput, match="is not a directory"):
        keys.node_files("execute", "n1")


def test_a_file_in_its_place_is_refused(keys: PoolKeys) -> None:
    keys.directory.parent.mkdir()
    keys.directory.write_text("x")
    with pytest.raises(BadInput):
        keys.node_files("execute", "n1")


def test_an_authority_that_does_not_fit(keys: PoolKeys) -> None:
    keys.node_files("execute", "n1")
    (keys.directory / "ca.key").write_bytes(pki.new_key())
    with pytest.raises(BadInput, match="does not hold the authority of pool 'physics'"):
        keys.node_files("execute", "n1")
    (keys.directory / "ca.key").unlink()
    with pytest.raises(BadInput, match="does not exist"):
        keys.node_files("execute", "n1")


def test_forget_leaves_nothing_and_may_be_said_twice(keys: PoolKeys) -> None:
    keys.forget()
    keys.write_user("john")
    keys.forget()
    assert not keys.directory.exists()
    keys.forget()
    assert keys.node_files("execute", "n1")


def _issue(home: Path, count: int) -> set[bytes]:
    keys = PoolKeys("physics", home)
    return {keys.node_files("execute", f"n{n}")["ca.crt"].reveal() for n in range(count)}


def test_processes_that_start_together_agree_on_one_authority(tmp_path: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(4) as processes:
        found = processes.starmap(_issue, [(tmp_path / "roost", 5)] * 4)
    assert len(set().union(*found)) == 1


def test_a_join_token_made_here_is_accepted_there(keys: PoolKeys, tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.mkdir()
    for name, secret in keys.node_files("master", "m1").items():
        (state / name).write_bytes(secret.reveal())
        (state / name).chmod(0o600)
    master = Master(state)
    token = keys.join_token("execute", 60, 1)
    assert token.text.reveal().decode() not in repr(token)
    admissions = master.admissions
    (state / token.path).write_bytes(token.record)
    asked = Candidate().asked(token.text.reveal().decode())
    assert admissions.request(asked, "10.0.0.1", print).status == 200
    with pytest.raises(BadInput):
        keys.join_token("master")
