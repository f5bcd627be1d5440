"""Certificates that follow one another, notices, revocation and a new authority: both sides."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from admission import Candidate, Master

from roost_node import join, keeper, notice, pki, register, renewal
from roost_node.errors import BadInput
from roost_node.notice import Notice
from roost_node.vocab import Role


@pytest.fixture
def master(tmp_path: Path) -> Iterator[Master]:
    made = Master(tmp_path / "master")
    with made.running():
        yield made


class Member:
    """A node that was let in."""

    def __init__(self, master: Master, state: Path, node: str = "ex1", role: Role = "execute"):
        self.master, self.state, self.node, self.role = master, state, node, role
        state.mkdir()
        self.log: list[str] = []
        token = state.parent / f"{node}.token"
        token.write_text(master.admissions.new_token(role, 60, 1, print))
        join.ensure_identity(role, node, "roost", "127.0.0.1", token, state, self.log.append,
                             port=master.port)  # fmt: skip

    def renew(self) -> None:
        link = join.Link("127.0.0.1", self.master.port)
        renewal.renew(self.role, self.node, link, self.state, self.log.append)

    def file(self, name: str) -> bytes:
        return (self.state / name).read_bytes()

    def take_up(self, monkeypatch: pytest.MonkeyPatch) -> bool:
        new = self.state.parent / "notice.new"
        new.write_bytes(keeper.fetch("127.0.0.1", self.master.port))
        monkeypatch.setattr(renewal, "NEW_NOTICE", str(new))
        return renewal.take_up(self.role, self.node, self.state, self.log.append)


@pytest.fixture
def member(master: Master, tmp_path: Path) -> Member:
    return Member(master, tmp_path / "ex1")


def test_a_renewal_is_a_new_key_and_certificate(master: Master, member: Member) -> None:
    before = member.file("node.key"), member.file("node.crt")
    member.renew()
    key, cert = member.file("node.key"), member.file("node.crt")
    assert (key, cert) != before
    assert pki.verify(master.ca, cert, key, "exec-ex1") == "physics"
    assert float(member.file("due")) == pytest.approx(pki.renewal(cert).timestamp(), abs=1)
    # Who lost the answer may ask with the certificate before; one before that has no successor.
    member.state.joinpath("node.key").write_bytes(before[0])
    member.state.joinpath("node.crt").write_bytes(before[1])
    member.renew()
    member.renew()
    member.state.joinpath("node.key").write_bytes(key)
    member.state.joinpath("node.crt").write_bytes(cert)
    with pytest.raises(renewal.Refused, match="exec-ex1 has a newer certificate"):
        member.renew()


def test_a_reader_is_renewed_too(master: Master, tmp_path: Path) -> None:
    member = Member(master, tmp_path / "s1", "s1", "submit")
    before = member.file("reader.crt")
    member.renew()
    assert member.file("reader.crt") != before


def asked(master: Master, candidate: Candidate, cert: bytes, key: bytes) -> tuple[int, str]:
    csr = pki.csr(candidate.key, "x")
    body = {
        "role": candidate.role,
        "node": candidate.node,
        "csr": csr.decode(),
        "certificate": cert.decode(),
        "signature": pki.signed(key, csr),
    }
    reply = master.admissions.renew(body, "10.0.0.9", print)
    return reply.status, reply.body.get("error", "")


def test_what_is_not_renewed(master: Master, member: Member) -> None:
    cert, key = member.file("node.crt"), member.file("node.key")
    other = pki.new_key()
    assert asked(master, Candidate(), cert, other)[0] == 400
    assert asked(master, Candidate("ex2"), cert, key) == (
        400, "the certificate is not that of exec-ex2",
    )  # fmt: skip
    assert asked(master, Candidate(role="submit"), cert, key)[0] == 400
    assert asked(master, Candidate(), b"x", key)[0] == 400
    foreign_key, foreign = pki.new_ca("physics")
    forged = pki.sign_node(foreign_key, foreign, pki.public_key(key), "execute", "ex1")
    assert "not from this pool's CA" in asked(master, Candidate(), forged, key)[1]
    user = pki.sign_user((master.state / "ca.key").read_bytes(), master.ca, key, "john")
    assert asked(master, Candidate(), user, key)[0] == 400


def test_a_replacement_that_was_cut_off_is_ended(member: Member) -> None:
    old = member.file("node.crt")
    member.renew()
    new = member.file("node.crt")
    (member.state / "node.crt").write_bytes(old)
    (member.state / "node.crt.next").write_bytes(new)
    register.settle(member.state)
    assert member.file("node.crt") == new
    (member.state / "node.crt.next").write_bytes(old)  # the key never came
    register.settle(member.state)
    assert member.file("node.crt") == new
    assert not (member.state / "node.crt.next").exists()


def test_who_is_revoked_is_neither_renewed_nor_admitted(master: Master, member: Member) -> None:
    assert keeper.fetch("127.0.0.1", master.port) == b""
    id = pki.serial(member.file("node.crt"))
    assert master.admissions.revoke([id], print) == ["exec-ex1"]
    with pytest.raises(renewal.Refused, match="exec-ex1 is revoked"):
        member.renew()
    assert master.ask(**Candidate().asked())[0] == 403
    found = notice.read(keeper.fetch("127.0.0.1", master.port), master.ca)
    assert found.revoked == ("exec-ex1",)
    (row,) = [row for row in master.admissions.credentials() if row["name"] == "exec-ex1"]
    assert row["revoked"] == pytest.approx(time.time(), abs=60)
    master.admissions.revoke(["ex1"], print, undo=True)
    member.renew()


@pytest.mark.parametrize("who", ["cm-m1", "reader", "../x", "exec-", "A B", ""])
def test_who_cannot_be_revoked(master: Master, who: str) -> None:
    with pytest.raises(BadInput):
        master.admissions.revoke([who], print)
    with pytest.raises(BadInput, match="is not revoked"):
        master.admissions.revoke(["john"], print, undo=True)


def test_a_notice_is_the_authoritys_and_the_newest(
    master: Master, member: Member, monkeypatch: pytest.MonkeyPatch
) -> None:
    denied: list[tuple[str, ...]] = []
    monkeypatch.setattr(renewal, "_deny", lambda _r, _n, _b, new, *_: denied.append(new.revoked))
    master.admissions.revoke(["john"], print)
    old = (master.state / "admit" / "notice").read_bytes()
    master.admissions.revoke(["mary"], print)
    new = (master.state / "admit" / "notice").read_bytes()
    assert not member.take_up(monkeypatch)
    assert denied == [("john", "mary")]
    key, _ = pki.new_ca("physics")
    forged = notice.dump(Notice(2**40, (), master.ca.decode()), key)
    for raw, says in ((old, "older"), (forged, "not signed"), (b"{", "damaged"), (b"[]", "damaged"),
                      (new.replace(b"mary", b"nick"), "not signed")):  # fmt: skip
        (master.state / "admit" / "notice").write_bytes(raw)
        assert not member.take_up(monkeypatch)
        assert says in member.log[-1]
    assert denied == [("john", "mary")]


def test_denials() -> None:
    text = notice.denials(("exec-ex1", "john"), "lab", "submit")
    assert "DENY_READ = $(DENY_READ) exec-ex1@lab.internal john@lab.internal\n" in text
    assert 'SLOT.Machine, "ex1")' in text
    assert "START_VANILLA" not in notice.denials(("john",), "lab", "submit")
    assert "START_VANILLA" not in notice.denials(("exec-ex1",), "lab", "execute")
    assert "DENY" not in notice.denials((), "lab", "submit")


def test_a_new_authority(master: Master, member: Member, monkeypatch: pytest.MonkeyPatch) -> None:
    old = master.ca
    old_cert, old_key = member.file("node.crt"), member.file("node.key")
    key, cert = pki.new_ca("physics")
    with pytest.raises(BadInput, match="not an authority of the pool"):
        master.admissions.announce_authority(*pki.new_ca("chemistry"), print)
    with pytest.raises(BadInput, match="no new CA"):
        master.admissions.switch_authority("m1", print)
    master.admissions.announce_authority(key, cert, print)
    with pytest.raises(BadInput, match="already"):
        master.admissions.announce_authority(key, cert, print)
    assert master.admissions.rotation(["exec-ex1"])["waiting"] == ["exec-ex1"]
    assert member.take_up(monkeypatch)
    assert member.file("ca.crt") == old + cert
    member.renew()
    assert master.admissions.rotation(["exec-ex1"])["waiting"] == []
    master.admissions.switch_authority("m1", print)
    master.admissions.switch_authority("m1", print)
    assert master.admissions.rotation(["exec-ex1"])["waiting"] == ["exec-ex1"]
    assert member.take_up(monkeypatch)
    member.renew()  # the master shows its new certificate already
    assert pki.issuer(cert, member.file("node.crt")) is not None
    assert master.admissions.rotation(["exec-ex1"])["waiting"] == []
    master.admissions.drop_authority(print)
    assert member.take_up(monkeypatch)
    member.renew()
    assert member.file("ca.crt") == master.ca == cert
    status, why = asked(master, Candidate(), old_cert, old_key)
    assert (status, "not from this pool's CA" in why) == (403, True)


def test_an_authority_that_is_dropped() -> None:
    old, new = (pki.new_ca("lab")[1].decode() for _ in range(2))
    assert renewal.dropped(Notice(2, (), new + old), Notice(3, (), new))
    assert not renewal.dropped(Notice(1, (), old), Notice(2, (), old + new))
    assert not renewal.dropped(Notice(), Notice(1, (), new))


def test_when_there_is_something_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeper, "NEW_NOTICE", str(tmp_path / "new"))
    monkeypatch.setattr(keeper, "REST", 0.0)
    (tmp_path / "admit").mkdir()

    def wants(due: float) -> bool:
        (tmp_path / "due").write_text(f"{due}\n")
        kept = keeper.Keeper(str(tmp_path), master=True)
        first = kept.wants("")
        assert kept._thread is not None
        kept._thread.join()
        return first or kept.wants("")

    assert not wants(time.time() + 60)
    assert wants(time.time() - 1)
    (tmp_path / "admit" / "notice").write_bytes(b"news")
    assert wants(time.time() + 60)
    assert (tmp_path / "new").read_bytes() == b"news"
    (tmp_path / "notice").write_bytes(b"news")
    assert not wants(time.time() + 60)


def test_a_master_that_hangs_up_has_no_notice() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        listener.close()
        with pytest.raises(OSError, match="refused"):
            keeper.fetch("127.0.0.1", port)


@pytest.mark.parametrize(("left", "seconds"), [(60, 10), (86400, 3600), (6000, 600), (-9, 10)])
def test_a_renewal_that_failed_is_tried_again(left: float, seconds: float) -> None:
    assert renewal.patience(left) == seconds
