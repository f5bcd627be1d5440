"""The master's door: real TLS on loopback, friendly and hostile callers."""

from __future__ import annotations

import json
import socket
import ssl
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from admission import Candidate, Master, answer, secrets_in

from roost_node import admit, pki, register, tokens
from roost_node.errors import BadInput, NodeError
from roost_node.register import Admissions, ensure_ca


@pytest.fixture
def master(tmp_path: Path) -> Iterator[Master]:
    there = Master(tmp_path / "state")
    with there.running():
        yield there
    assert secrets_in(there.log) == []


def certified(master: Master, candidate: Candidate, body: dict[str, Any]) -> bool:
    name = f"{ {'submit': 'ap', 'execute': 'exec'}[candidate.role] }-{candidate.node}"
    cert = body["certificate"].encode()
    pool: str = body["pool"]
    return pki.verify(body["ca"].encode(), cert, candidate.key, name) == pool


# --- the master's own identity ---------------------------------------------------------------


def test_the_authority_is_made_once_and_survives_restarts(tmp_path: Path) -> None:
    log: list[str] = []
    assert ensure_ca(tmp_path, "physics", "m1", log.append) == "physics"
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    assert ensure_ca(tmp_path, None, "m1", log.append) == "physics"
    after = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    assert after == before
    assert set(after) == {"ca.crt", "ca.key", "node.crt", "node.key", "due"}
    assert len(log) == 2
    for name, mode in {
        "ca.key": 0o600,
        "node.key": 0o600,
        "ca.crt": 0o644,
        "node.crt": 0o644,
    }.items():
        assert (tmp_path / name).stat().st_mode & 0o777 == mode


def test_a_start_that_was_cut_short_is_finished_by_the_next(tmp_path: Path) -> None:
    ensure_ca(tmp_path, "physics", "m1", print)
    for gone in (["node.crt"], ["node.crt", "node.key"], ["node.crt", "ca.crt"]):
        for name in gone:
            (tmp_path / name).unlink()
        assert ensure_ca(tmp_path, "physics", "m1", print) == "physics"


def test_a_delivered_identity_is_left_alone(tmp_path: Path) -> None:
    ca_key, ca = pki.new_ca("physics")
    key = pki.new_key()
    cert = pki.sign_node(ca_key, ca, pki.public_key(key), "master", "m1")
    for name, content in {
        "ca.key": ca_key,
        "ca.crt": ca,
        "node.key": key,
        "node.crt": cert,
    }.items():
        (tmp_path / name).write_bytes(content)
        (tmp_path / name).chmod(0o600)
    assert ensure_ca(tmp_path, None, "m1", print) == "physics"
    assert (tmp_path / "node.crt").read_bytes() == cert
    with pytest.raises(BadInput, match="'cm-m1' and this is 'cm-m2'"):
        ensure_ca(tmp_path, None, "m2", print)


def test_a_master_under_another_host_name_keeps_the_one_its_nodes_know(tmp_path: Path) -> None:
    ensure_ca(tmp_path, "physics", "m1", print)
    ensure_ca(tmp_path, "physics", "m2", print)
    cert = (tmp_path / "node.crt").read_bytes()
    assert pki.common_name(cert) == "cm-m2"
    assert pki.host_names(cert) == ("m2", "m1")


def test_the_masters_certificate_is_renewed_in_time(tmp_path: Path) -> None:
    ensure_ca(tmp_path, "physics", "m1", print)
    before = (tmp_path / "node.crt").read_bytes()
    ensure_ca(tmp_path, "physics", "m1", print, now=datetime.now(UTC) + timedelta(days=4))
    assert (tmp_path / "node.crt").read_bytes() == before
    ensure_ca(tmp_path, "physics", "m1", print, now=datetime.now(UTC) + timedelta(days=5))
    assert (tmp_path / "node.crt").read_bytes() != before
    key, cert = ((tmp_path / f"node.{kind}").read_bytes() for kind in ("key", "crt"))
    assert pki.fits(key, cert)
    assert (pki.expires(cert) - pki.issued(cert)).days == 7


@pytest.mark.parametrize(
    ("break_it", "sentence"),
    [
        (lambda there: None, "is that of pool 'physics' and this is to be 'other'"),
        (lambda there: (there / "ca.key").write_bytes(pki.new_key()), "does not fit"),
        (lambda there: (there / "ca.key").chmod(0o644), "others may read it"),
        (lambda there: (there / "ca.crt").write_bytes(b"x"), "not a certificate in PEM"),
        (lambda there: (there / "node.key").unlink(), "does not exist"),
    ],
)
def test_what_does_not_fit_is_one_sentence(tmp_path: Path, break_it: Any, sentence: str) -> None:
    ensure_ca(tmp_path, "physics", "m1", print)
    break_it(tmp_path)
    pool = "other" if "'other'" in sentence else "physics"
    with pytest.raises(BadInput, match=sentence) as caught:
        ensure_ca(tmp_path, pool, "m1", print)
    assert "\n" not in str(caught.value)


# --- tokens ----------------------------------------------------------------------------------


def test_a_token_admits_at_once_and_a_retry_gets_the_same(master: Master) -> None:
    token = master.admissions.new_token("execute", 60, 1, master.log.append)
    candidate = Candidate()
    status, body = master.ask(**candidate.asked(token))
    assert status == 200
    assert certified(master, candidate, body)
    assert (body["pool"], body["master"]) == ("physics", "m1")
    assert set(body) == {"certificate", "ca", "pool", "master"}
    assert master.ask(**candidate.asked(token)) == (200, body)
    assert master.ask(**candidate.asked()) == (200, body)


def test_a_used_token_says_so(master: Master) -> None:
    token = master.admissions.new_token("execute", 60, 1, master.log.append)
    assert master.ask(**Candidate("a").asked(token))[0] == 200
    status, body = master.ask(**Candidate("b").asked(token))
    assert status == 403
    assert "used up" in body["error"]


def test_of_many_who_race_for_a_token_as_many_win_as_it_admits(master: Master) -> None:
    token = master.admissions.new_token("execute", 60, 3, master.log.append)
    candidates = [Candidate(f"ex{n}") for n in range(12)] * 2
    with ThreadPoolExecutor(12) as threads:
        answers = list(threads.map(lambda one: master.ask(**one.asked(token)), candidates))
    winners = {
        candidate.node for candidate, (status, _) in zip(candidates, answers, strict=True)
        if status == 200
    }  # fmt: skip
    assert len(winners) == 3
    assert {status for status, _ in answers} == {200, 403}
    for candidate, (status, _) in zip(candidates, answers, strict=True):
        assert (status == 200) == (candidate.node in winners)


def test_bad_tokens(master: Master) -> None:
    good = tokens.parse(master.admissions.new_token("execute", 60, 1, master.log.append))
    stranger = tokens.new("physics", "execute", good.ca, 60)
    forged = tokens.Token(good.pool, "execute", good.expires, good.id, good.ca, stranger.secret)
    for text, why in ((stranger.text, "not known"), (forged.text, "not known"),
                      ("rubbish", "unreadable"), ("../../x", "unreadable")):  # fmt: skip
        status, body = master.ask(**Candidate().asked(text))
        assert (status, why in body["error"]) == (403, True), body
    status, body = master.ask(**Candidate(role="submit").asked(good.text))
    assert "is for the role execute" in body["error"]
    status, body = master.post(json.dumps({**Candidate().asked(), "token": 7}).encode())
    assert (status, "unreadable" in body["error"]) == (403, True)


def test_neither_expiry_nor_role_can_be_written_into_a_token(tmp_path: Path) -> None:
    master = Master(tmp_path)
    late = Admissions(tmp_path, clock=lambda: time.time() + 3600)
    good = tokens.parse(master.admissions.new_token("execute", 60, 1, print))
    for changed in (
        tokens.Token(good.pool, "execute", good.expires + 10**6, good.id, good.ca, good.secret),
        good,
    ):
        reply = late.request(Candidate().asked(changed.text), "10.0.0.1", print)
        assert reply.status == 403
        assert "expired" in reply.body["error"]
    other = tokens.Token(good.pool, "submit", good.expires, good.id, good.ca, good.secret)
    reply = master.admissions.request(Candidate(role="submit").asked(other.text), "10.0.0.1", print)
    assert "is for the role execute" in reply.body["error"]


def test_an_access_point_gets_the_readers_certificate(master: Master) -> None:
    token = master.admissions.new_token("submit", 60, 1, master.log.append)
    candidate, reader = Candidate("s1", "submit"), pki.new_key()
    asked = candidate.asked(token) | {"reader_csr": pki.csr(reader, "root").decode()}
    status, body = master.ask(**asked)
    assert status == 200
    assert certified(master, candidate, body)
    assert pki.verify(master.ca, body["reader_certificate"].encode(), reader, "reader") == "physics"


def test_an_executor_gets_no_readers_certificate(master: Master) -> None:
    token = master.admissions.new_token("execute", 60, 1, master.log.append)
    asked = Candidate().asked(token) | {"reader_csr": pki.csr(pki.new_key(), "x").decode()}
    assert "reader_certificate" not in master.ask(**asked)[1]


# --- an administrator's word -----------------------------------------------------------------


def test_who_waits_is_listed_and_approved(master: Master) -> None:
    candidate = Candidate()
    status, body = master.ask(**candidate.asked())
    assert (status, body["id"]) == (202, candidate.id)
    assert body["fingerprint"] == pki.fingerprint(candidate.key)
    assert master.ask(**candidate.asked()) == (202, body)
    (request,) = master.admissions.list_pending()
    assert (request.name, request.address, request.id) == ("exec-ex1", "127.0.0.1", candidate.id)
    waiting = [line for line in master.log if "waits for" in line]
    assert len(waiting) == 1
    assert request.fingerprint in waiting[0]
    master.admissions.approve([candidate.id], master.log.append)
    status, body = master.ask(**candidate.asked())
    assert status == 200
    assert certified(master, candidate, body)
    assert master.admissions.list_pending() == []


def test_who_is_refused_stays_refused_until_approved(master: Master) -> None:
    candidate = Candidate()
    master.ask(**candidate.asked())
    master.admissions.refuse([candidate.id], master.log.append)
    status, body = master.ask(**candidate.asked())
    assert (status, "administrator refused" in body["error"]) == (403, True)
    token = master.admissions.new_token("execute", 60, 1, master.log.append)
    assert master.ask(**candidate.asked(token))[0] == 403
    master.admissions.approve([candidate.id], master.log.append)
    assert master.ask(**candidate.asked())[0] == 200


def test_an_approval_is_for_one_key_under_one_name(master: Master) -> None:
    candidate = Candidate()
    master.ask(**candidate.asked())
    master.admissions.approve([candidate.id], master.log.append)
    candidate.node = "ex2"
    assert master.ask(**candidate.asked())[0] == 202
    assert master.ask(**Candidate("ex1").asked())[0] == 202


def test_a_name_in_use_needs_an_administrator_even_with_a_token(master: Master) -> None:
    first, second = Candidate(), Candidate()
    token = master.admissions.new_token("execute", 60, 2, master.log.append)
    master.ask(**first.asked(token))
    status, body = master.ask(**second.asked(token))
    assert status == 202
    assert f"already issued to the key {pki.fingerprint(first.key)}" in body["message"]
    assert master.ask(**Candidate("ex2").asked(token))[0] == 200, "the token was not used up"
    master.admissions.approve([second.id], master.log.append)
    assert master.ask(**second.asked())[0] == 200
    assert master.ask(**first.asked())[0] == 202
    assert any("instead of the key" in line for line in master.log)


def test_the_pools_own_token_admits_a_node_that_begins_anew(master: Master) -> None:
    token = master.admissions.new_token("execute", 60, 2, master.log.append, own=True)
    assert "for execute of the pool, 2 uses" in master.log[-1]
    first, second, third = (Candidate(f"{master.admissions.pool}-ex1") for _ in range(3))
    for candidate in (first, second):
        assert master.ask(**candidate.asked(token))[0] == 200
    status, body = master.ask(**third.asked(token))
    assert (status, "used up" in body["error"]) == (403, True)
    # It is for one role, and whoever only knows its name has nothing.
    assert master.ask(**Candidate(role="submit").asked(token))[0] == 403
    forged = f"{token.rpartition('.')[0]}.{'A' * 43}"
    assert master.ask(**second.asked(forged))[0] == 200  # it has its certificate already
    assert master.ask(**third.asked(forged))[0] == 202  # as any whose name is taken: it waits


def test_a_name_is_free_again_when_its_certificate_has_expired(tmp_path: Path) -> None:
    Master(tmp_path)
    token = Admissions(tmp_path).new_token("execute", 60, 1, print)
    assert Admissions(tmp_path).request(Candidate().asked(token), "10.0.0.1", print).status == 200
    later = Admissions(tmp_path, clock=lambda: time.time() + 400 * 86400)
    later.approve_network("10.0.0.0/8", 60, print)
    assert later.request(Candidate().asked(), "10.0.0.1", print).status == 200


def test_where_roost_made_the_pool_its_names_are_its_own(tmp_path: Path) -> None:
    Master(tmp_path)
    (tmp_path / "admit" / "self").unlink()
    admissions = Admissions(tmp_path)
    token = admissions.new_token("execute", 60, 2, print)
    reply = admissions.request(Candidate("physics-cpu-1").asked(token), "10.0.0.1", print)
    assert (reply.status, "roost itself makes" in reply.body["message"]) == (202, True)
    assert admissions.request(Candidate("ex1").asked(token), "10.0.0.1", print).status == 200


def test_an_open_network_admits_for_its_time(tmp_path: Path) -> None:
    Master(tmp_path)
    now = [time.time()]
    admissions = Admissions(tmp_path, clock=lambda: now[0])

    def ask(candidate: Candidate, address: str) -> int:
        return admissions.request(candidate.asked(), address, print).status

    early = Candidate("early")
    assert ask(early, "172.17.0.9") == 202
    admissions.approve_network("172.17.0.0/16", 600, print)
    assert ask(early, "172.17.0.9") == 200
    assert ask(Candidate("early"), "172.17.0.9") == 202, "the name is taken"
    assert ask(Candidate("b"), "172.18.0.9") == 202
    assert ask(Candidate("c"), "fd00::1") == 202
    now[0] += 601
    assert ask(Candidate("d"), "172.17.0.9") == 202


@pytest.mark.parametrize(
    ("network", "seconds"), [("x", 60), ("10.0.0.0/33", 60), ("10.0.0.0/8", 0), ("::/0", 10**6)]
)
def test_networks_that_cannot_be_opened(tmp_path: Path, network: str, seconds: float) -> None:
    with pytest.raises(BadInput):
        Master(tmp_path).admissions.approve_network(network, seconds, print)


@pytest.mark.parametrize("id", ["", "0" * 16, "../../ca.key", "*", "0" * 15, "G" * 16])
def test_ids_that_nobody_has(tmp_path: Path, id: str) -> None:
    admissions = Master(tmp_path).admissions
    for verb in (admissions.approve, admissions.refuse):
        with pytest.raises(BadInput, match="approve --list"):
            verb([id], print)


def test_all_are_approved_or_none(master: Master) -> None:
    candidate = Candidate()
    master.ask(**candidate.asked())
    with pytest.raises(BadInput):
        master.admissions.approve([candidate.id, "0" * 16], master.log.append)
    assert master.ask(**candidate.asked())[0] == 202


def test_requests_are_forgotten_and_limited(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Master(tmp_path)
    monkeypatch.setattr(register, "MAX_PENDING", 2)
    now = [time.time()]
    admissions = Admissions(tmp_path, clock=lambda: now[0])
    statuses = [
        admissions.request(Candidate(f"ex{n}").asked(), "10.0.0.1", print).status for n in range(3)
    ]
    assert statuses == [202, 202, 503]
    now[0] += register.PENDING_LIFE + 1
    assert admissions.list_pending() == []
    assert admissions.request(Candidate().asked(), "10.0.0.1", print).status == 202


def test_the_state_is_closed_to_others(master: Master) -> None:
    master.ask(**Candidate().asked())
    master.admissions.new_token("execute", 60, 1, master.log.append)
    for path in [master.state / "admit", *(master.state / "admit").rglob("*")]:
        if path.name != "self":
            assert path.stat().st_mode & 0o777 == (0o700 if path.is_dir() else 0o600), path


def test_no_token_is_stored(master: Master) -> None:
    token = tokens.parse(master.admissions.new_token("execute", 60, 1, master.log.append))
    master.ask(**Candidate().asked(token.text))
    secret = token.text.rpartition(".")[2]
    stored = b"".join(p.read_bytes() for p in (master.state / "admit").rglob("*") if p.is_file())
    assert secret.encode() not in stored
    assert token.secret not in stored
    assert secrets_in(master.log, secret, token.secret.hex()) == []


def test_what_was_decided_survives_a_restart(tmp_path: Path) -> None:
    master = Master(tmp_path)
    one, two, three = Candidate("a"), Candidate("b"), Candidate("c")
    with master.running():
        token = master.admissions.new_token("execute", 60, 1, print)
        issued = master.ask(**one.asked(token))
        master.ask(**two.asked())
        master.ask(**three.asked())
    ensure_ca(tmp_path, "physics", "m1", print)
    with master.running():
        assert master.ask(**one.asked(token)) == issued
        assert master.ask(**Candidate("d").asked(token))[0] == 403
        assert {request.node for request in master.admissions.list_pending()} == {"b", "c"}
        master.admissions.approve([two.id], print)
        assert master.ask(**two.asked())[0] == 200


# --- hostile callers -------------------------------------------------------------------------

POST = b"POST /v1/join HTTP/1.1\r\n"


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", 404),
        (b"GET /v1/join HTTP/1.1\r\n\r\n", 404),
        (b"PUT /v1/join HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}", 404),
        (b"nonsense\r\n\r\n", 400),
        (b"\r\n\r\n", 400),
        (b"GET /v1/ca SMTP/1.0\r\n\r\n", 400),
        (POST + b"\r\n", 400),
        (POST + b"Content-Length: 0\r\n\r\n", 400),
        (POST + b"Content-Length: 2\r\n\r\n[]", 400),
        (POST + b"Content-Length: 2\r\n\r\n{}", 400),
        (POST + b"Content-Length: 4\r\n\r\n\xff\xfe{}", 400),
        (POST + b"Content-Length: -1\r\n\r\n", 400),
        (POST + b"Content-Length: x\r\n\r\n", 400),
        (POST + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}", 400),
        (POST + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n", 400),
        (POST + b"Content-Length: 16385\r\n\r\n", 413),
        (POST + b"Content-Length: 99999999999999999999\r\n\r\n", 413),
        (POST + b"Content-Length: 100000\r\n\r\n" + b"x" * 100000, 413),
        (POST + b"X: " + b"x" * 20000, 413),
        (POST + b"Content-Length: 10000\r\n\r\n" + b"[" * 10000, 400),
    ],
)
def test_malformed_and_oversized_requests(master: Master, raw: bytes, status: int) -> None:
    found, body = master.send(raw)
    assert (found, set(body)) == (status, {"error"})
    assert master.ask(**Candidate().asked())[0] == 202


GOOD = Candidate().asked()


@pytest.mark.parametrize(
    "asked",
    [
        {},
        GOOD | {"role": "master"},
        GOOD | {"role": ["execute"]},
        GOOD | {"node": "../../etc"},
        GOOD | {"node": "x" * 59},
        GOOD | {"node": "a\nadmitted"},
        GOOD | {"node": None},
        GOOD | {"csr": "hello"},
        GOOD | {"csr": pki.public_key(pki.new_key()).decode()},
        GOOD
        | {"csr": "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----"},
        GOOD | {"csr": "\ud800 CERTIFICATE REQUEST-----"},
        GOOD | {"csr": {"a": 1}},
    ],
)
def test_requests_that_make_no_sense(master: Master, asked: dict[str, Any]) -> None:
    status, body = master.ask(**asked)
    assert (status, set(body)) == (400, {"error"})
    assert master.admissions.list_pending() == []


def test_a_readers_request_that_makes_no_sense(master: Master) -> None:
    token = master.admissions.new_token("submit", 60, 1, master.log.append)
    asked = Candidate("s1", "submit").asked(token) | {"reader_csr": "rubbish"}
    status, _ = master.ask(**asked)
    assert status == 400


def test_without_tls_there_is_nothing(master: Master) -> None:
    with socket.create_connection(("127.0.0.1", master.port), timeout=10) as plain:
        plain.sendall(b"GET /v1/ca HTTP/1.1\r\n\r\n")
        with suppress(ConnectionResetError):
            assert b"BEGIN" not in plain.recv(4096)
    with pytest.raises((ssl.SSLError, ConnectionError)):
        old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
        old.maximum_version = ssl.TLSVersion.TLSv1_2
        with socket.create_connection(("127.0.0.1", master.port), timeout=10) as plain:
            old.wrap_socket(plain)
    assert master.ask(**Candidate().asked())[0] == 202


@pytest.mark.parametrize(
    ("sent", "says"),
    [
        (b"POST /v1/join HTTP/1.1\r\nContent-Length: 99999\r\n\r\n", "refused, 413: a request has"),
        (b"GET /v1/secrets HTTP/1.1\r\n\r\n", "refused, 404: there is GET /v1/ca"),
        (b"rubbish\r\n\r\n", "refused, 400: the request is not HTTP/1.1"),
    ],
)
def test_each_refusal_is_logged_with_who_and_what_and_not_too_often(
    master: Master, sent: bytes, says: str
) -> None:
    for _ in range(3):
        with master.connect() as connection:
            connection.sendall(sent)
            answer(connection)
    (line,) = [line for line in master.log if "refused" in line]
    assert line.startswith(f"127.0.0.1: {says}")


def test_what_speaks_no_tls_is_logged(master: Master) -> None:
    with socket.create_connection(("127.0.0.1", master.port), timeout=10) as plain:
        plain.sendall(b"\0" * 100)
        with suppress(ConnectionResetError):
            plain.recv(100)
    said, until = "127.0.0.1: speaks no TLS that counts here (", time.monotonic() + 5
    while not any(line.startswith(said) for line in master.log):
        assert time.monotonic() < until, master.log
        time.sleep(0.01)


def test_who_dawdles_is_left(tmp_path: Path) -> None:
    master = Master(tmp_path)
    with master.running(admit.Limits(connections=4, seconds=1.0)):
        begun = time.monotonic()
        silent = socket.create_connection(("127.0.0.1", master.port), timeout=10)
        with silent, master.connect() as drip:
            for byte in b"POST /v1/join HTTP/1.1\r\nContent-Length: 100\r\n\r\n" + b"x" * 90:
                try:
                    drip.sendall(bytes([byte]))
                except OSError:
                    break
                time.sleep(0.03)
            assert time.monotonic() - begun < 3
            with pytest.raises((OSError, ValueError)):
                answer(drip)
            assert silent.recv(1) == b""
        assert master.ask(**Candidate().asked())[0] == 202
    assert "127.0.0.1: hung up on, too slow; more within a minute is not logged" in master.log


def test_one_address_does_not_take_all_connections(tmp_path: Path) -> None:
    master = Master(tmp_path)
    with master.running(admit.Limits(connections=4, seconds=5.0)):
        held = [master.connect() for _ in range(2)]
        with pytest.raises((ssl.SSLError, OSError)):
            master.connect()
        for one in held:
            one.close()
        deadline = time.monotonic() + 5
        while True:
            try:
                assert master.ask(**Candidate().asked())[0] == 202
                break
            except OSError:
                assert time.monotonic() < deadline
    assert sum("too many connections" in line for line in master.log) == 1


def test_who_asks_too_often_is_told_so(tmp_path: Path) -> None:
    master = Master(tmp_path)
    candidate = Candidate()
    with master.running(admit.Limits(burst=5, rate=2.0)):
        statuses = [master.ask(**candidate.asked())[0] for _ in range(8)]
        assert statuses[:5] == [202] * 5
        assert 429 in statuses
        time.sleep(0.7)
        assert master.ask(**candidate.asked())[0] == 202


def test_damaged_state_is_an_answer_and_a_line(master: Master) -> None:
    candidate = Candidate()
    master.ask(**candidate.asked())
    (master.state / "admit" / "issued" / "exec-ex1.json").write_bytes(b"{")
    status, body = master.ask(**candidate.asked())
    assert (status, "log says why" in body["error"]) == (500, True)
    assert any("is damaged" in line for line in master.log)


def test_a_master_without_its_keys_says_so(tmp_path: Path) -> None:
    for lost in ("ca.key", "node.key"):
        master = Master(tmp_path / lost)
        (master.state / lost).unlink()
        with admit.listen("127.0.0.1", 0) as listener:
            address = listener.getsockname()
            knock = socket.create_connection(address, timeout=5)
            with knock, pytest.raises(NodeError) as caught:
                admit.serve(master.state, listener=listener, say=print)
        assert "\n" not in str(caught.value)


def test_a_port_in_use_is_one_sentence(master: Master) -> None:
    with pytest.raises(NodeError, match=f"cannot listen on port {master.port}"):
        admit.listen("127.0.0.1", master.port)


def test_it_listens_on_ipv4_whatever_the_machine_has() -> None:
    with admit.listen("", 0) as listener:
        port = listener.getsockname()[1]
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
