"""A node gets its identity from files, from earlier, with a token, by approval; or says why not."""

from __future__ import annotations

import http.server
import json
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from admission import Master, secrets_in

from roost_node import pki, tokens
from roost_node.errors import BadInput, NodeError
from roost_node.join import Identity, Stopped, ensure_identity
from roost_node.vocab import Role


class Node:
    """A node's state directory, log and token; `join()` in a thread, so that the test may act."""

    def __init__(self, where: Path, node: str = "ex1", role: Role = "execute") -> None:
        self.state = where / f"node-{node}"
        self.state.mkdir(exist_ok=True)
        self.role, self.node = role, node
        self.log: list[str] = []
        self.token_file: Path | None = None
        self.stop = threading.Event()
        self.outcome: list[Identity | Exception] = []

    def give(self, token: str) -> None:
        self.token_file = self.state.parent / f"{self.node}.token"
        self.token_file.write_text(token + "\n")

    def join(self, port: int, address: str = "127.0.0.1") -> Identity:
        return ensure_identity(
            self.role, self.node, "roost", address, self.token_file, self.state, self.log.append,
            stop=self.stop, port=port, poll=0.05,
        )  # fmt: skip

    @contextmanager
    def joining(self, port: int, address: str = "127.0.0.1") -> Iterator[None]:
        def run() -> None:
            try:
                self.outcome.append(self.join(port, address))
            except NodeError as error:
                self.outcome.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield
        finally:
            if not self.outcome:
                thread.join(15)
            self.stop.set()
            thread.join(5)
            assert not thread.is_alive()

    @property
    def identity(self) -> Identity:
        (outcome,) = self.outcome
        assert isinstance(outcome, Identity), outcome
        return outcome

    def says(self, text: str) -> bool:
        return any(text in line for line in self.log)


def until(true: Callable[[], object]) -> None:
    deadline = time.monotonic() + 10
    while not true():
        assert time.monotonic() < deadline, "it did not happen within 10 s"
        time.sleep(0.01)


@pytest.fixture
def master(tmp_path: Path) -> Iterator[Master]:
    there = Master(tmp_path / "master")
    with there.running():
        yield there
    assert secrets_in(there.log) == []


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    there = Node(tmp_path)
    yield there
    there.stop.set()
    text = there.token_file.read_text() if there.token_file else ""
    assert secrets_in(there.log, text.strip().rpartition(".")[2] or "-" * 9) == []


def modes(state: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mode & 0o777 for path in state.iterdir()}


# --- at once ---------------------------------------------------------------------------------


def test_with_a_token_at_once(master: Master, node: Node) -> None:
    node.give(master.admissions.new_token("execute", 60, 1, print))
    assert node.join(master.port) == Identity("physics", "execute", "ex1", "m1")
    paths = (node.state / name for name in ("ca.crt", "node.crt", "node.key"))
    ca, cert, key = (path.read_bytes() for path in paths)
    assert pki.verify(ca, cert, key, "exec-ex1") == "physics"
    assert modes(node.state) == {
        "ca.crt": 0o644, "node.crt": 0o644, "node.key": 0o600, "master.name": 0o644,
        "due": 0o644,
    }  # fmt: skip
    assert (node.state / "master.name").read_text() == "m1\n"
    assert len(node.log) == 1


def test_an_access_point_also_gets_a_reader(master: Master, tmp_path: Path) -> None:
    node = Node(tmp_path, "s1", "submit")
    node.give(master.admissions.new_token("submit", 60, 1, print))
    assert node.join(master.port).role == "submit"
    assert modes(node.state)["reader.key"] == modes(node.state)["reader.crt"] == 0o644
    key, cert = ((node.state / f"reader.{kind}").read_bytes() for kind in ("key", "crt"))
    assert pki.verify(master.ca, cert, key, "reader") == "physics"


def test_the_private_key_never_leaves(master: Master, node: Node) -> None:
    node.give(master.admissions.new_token("execute", 60, 1, print))
    node.join(master.port)
    key = (node.state / "node.key").read_bytes()
    on_master = b"".join(p.read_bytes() for p in master.state.rglob("*") if p.is_file())
    assert key.splitlines()[1] not in on_master


def test_what_was_joined_is_kept_without_a_master(master: Master, node: Node) -> None:
    node.give(master.admissions.new_token("execute", 60, 1, print))
    first = node.join(master.port)
    assert node.token_file is not None
    node.token_file.unlink()
    before = (node.state / "node.crt").read_bytes()
    assert node.join(1, "nowhere.invalid") == first
    assert (node.state / "node.crt").read_bytes() == before
    node.token_file = None


def test_what_was_joined_and_has_expired_is_renewed(master: Master, node: Node) -> None:
    node.give(master.admissions.new_token("execute", 60, 1, print))
    node.join(master.port)
    key = (node.state / "node.key").read_bytes()
    old = pki.sign_node(
        (master.state / "ca.key").read_bytes(), master.ca, pki.public_key(key), "execute", "ex1",
        days=-0.001,
    )  # fmt: skip
    (node.state / "node.crt").write_bytes(old)
    node.join(master.port)
    new = (node.state / "node.crt").read_bytes()
    assert pki.verify(master.ca, new, (node.state / "node.key").read_bytes(), "exec-ex1")
    assert (node.state / "node.key").read_bytes() != key
    assert any("renewed exec-ex1" in line for line in master.log)


def deliver(state: Path, role: Role = "execute", name: str = "ex1", days: float = 9) -> bytes:
    ca_key, ca = pki.new_ca("physics")
    key = pki.new_key()
    cert = pki.sign_node(ca_key, ca, pki.public_key(key), role, name, days=days)
    for file, content in {"ca.crt": ca, "node.crt": cert, "node.key": key}.items():
        (state / file).write_bytes(content)
        (state / file).chmod(0o600)
    return cert


def test_delivered_files_are_used_as_they_are(node: Node) -> None:
    cert = deliver(node.state)
    assert node.join(1, "physics-master") == Identity("physics", "execute", "ex1", "physics-master")
    assert (node.state / "node.crt").read_bytes() == cert
    assert modes(node.state) == {
        "ca.crt": 0o644,
        "node.crt": 0o644,
        "node.key": 0o600,
        "due": 0o644,
    }
    assert node.log == []


def test_delivered_files_that_do_not_fit(node: Node) -> None:
    deliver(node.state, name="ex2")
    with pytest.raises(BadInput, match="'exec-ex2' and this is 'exec-ex1'"):
        node.join(1)
    deliver(node.state, days=-0.001)
    with node.joining(1):
        until(lambda: node.says("to renew this node's certificate: nothing listens"))
        node.stop.set()
        until(lambda: node.outcome)
    deliver(node.state)
    (node.state / "node.key").unlink()
    with pytest.raises(BadInput, match=r"node\.key does not exist"):
        node.join(1)


def test_a_master_makes_its_own(tmp_path: Path) -> None:
    log: list[str] = []
    for pool, expected in (("physics", "physics"), ("roost", "physics")):
        found = ensure_identity("master", "m1", pool, "", None, tmp_path, log.append)
        assert found == Identity(expected, "master", "m1", "m1")
    with pytest.raises(BadInput, match="is that of pool 'physics'"):
        ensure_identity("master", "m1", "other", "", None, tmp_path, log.append)
    assert secrets_in(log) == []


@pytest.mark.parametrize("role", ["master", "execute"])
def test_a_state_directory_that_cannot_be_is_one_sentence(tmp_path: Path, role: Role) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(NodeError, match=r"cannot be kept in .*/file/state: ") as caught:
        ensure_identity(role, "n1", "roost", "m1", None, tmp_path / "file" / "state", print)
    assert caught.value.exit_code == 3


# --- by approval -----------------------------------------------------------------------------


def test_without_a_token_it_waits_and_says_how_to_approve_it(master: Master, node: Node) -> None:
    with node.joining(master.port):
        until(master.admissions.list_pending)
        (request,) = master.admissions.list_pending()
        until(lambda: node.says(f"docker exec m1 roost-node approve {request.id}"))
        assert node.says(f"CA {pki.fingerprint(master.ca)}")
        assert node.says(f"key {request.fingerprint}")
        time.sleep(0.3)
        assert len(node.log) == 1, "it says so once"
        master.admissions.approve([request.id], print)
    assert node.identity == Identity("physics", "execute", "ex1", "m1")
    assert node.says("admitted to pool physics by m1 as exec-ex1")


def test_a_refusal_ends_it(master: Master, node: Node) -> None:
    with node.joining(master.port):
        until(master.admissions.list_pending)
        master.admissions.refuse([master.admissions.list_pending()[0].id], print)
    (outcome,) = node.outcome
    assert isinstance(outcome, BadInput)
    assert "administrator refused exec-ex1" in str(outcome)
    assert not (node.state / "node.crt").exists()


def test_it_waits_on_while_the_master_restarts(tmp_path: Path, node: Node) -> None:
    master = Master(tmp_path / "master")
    with socket.create_server(("127.0.0.1", 0)) as spare:
        master.port = spare.getsockname()[1]
    with node.joining(master.port):
        until(lambda: node.says(f"nothing listens on port {master.port} there yet"))
        with master.running():
            until(master.admissions.list_pending)
            until(lambda: node.says("approve it with"))
        until(lambda: "nothing listens" in node.log[-1])
        master.admissions.approve([master.admissions.list_pending()[0].id], print)
        with master.running():
            until(lambda: node.outcome)
    assert node.identity.pool == "physics"
    assert len(node.log) <= 5


def test_a_node_that_is_restarted_while_it_waits_is_the_same(master: Master, node: Node) -> None:
    with node.joining(master.port):
        until(master.admissions.list_pending)
        node.stop.set()
    assert isinstance(node.outcome.pop(), Stopped)
    (request,) = master.admissions.list_pending()
    master.admissions.approve([request.id], print)
    node.stop.clear()
    node.join(master.port)


def test_a_name_that_does_not_resolve_is_waited_for(node: Node) -> None:
    with node.joining(9619, "nowhere.invalid"):
        until(lambda: node.says("waiting for the master nowhere.invalid:9619: its name does not"))
        node.stop.set()
    (outcome,) = node.outcome
    assert isinstance(outcome, Stopped)
    assert outcome.exit_code == 0
    assert len(node.log) == 1


def test_a_master_made_anew_while_a_node_waits_is_not_trusted(tmp_path: Path, node: Node) -> None:
    master, other = Master(tmp_path / "master"), Master(tmp_path / "other")
    with node.joining(_port(master, other)):
        with master.running():
            until(master.admissions.list_pending)
        with other.running():
            until(lambda: node.outcome)
    (outcome,) = node.outcome
    assert type(outcome) is NodeError
    assert "is not from the CA" in str(outcome)
    assert other.admissions.list_pending() == []


def _port(*masters: Master) -> int:
    with socket.create_server(("127.0.0.1", 0)) as spare:
        port: int = spare.getsockname()[1]
    for master in masters:
        master.port = port
    return port


# --- tokens that do not serve ----------------------------------------------------------------


def refusal(node: Node, port: int) -> str:
    with pytest.raises(BadInput) as caught:
        node.join(port)
    sentence = str(caught.value)
    assert "\n" not in sentence
    assert not (node.state / "node.crt").exists()
    return sentence


def test_a_token_of_another_pool_is_not_shown_to_this_one(
    tmp_path: Path, master: Master, node: Node
) -> None:
    other = Master(tmp_path / "other", "biology")
    node.give(other.admissions.new_token("execute", 60, 1, print))
    sentence = refusal(node, master.port)
    assert "the join token is for another pool: it is for 'biology'" in sentence
    assert pki.fingerprint(master.ca) in sentence
    assert master.log[2:] == [], "nothing was asked of a master that may be anybody"


def test_an_expired_token(master: Master, node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    token = tokens.parse(master.admissions.new_token("execute", 60, 1, print))
    old = tokens.Token(token.pool, "execute", 1000, token.id, token.ca, token.secret)
    node.give(old.text)
    assert "expired at 1970-01-01" in refusal(node, master.port)


def test_a_token_for_another_role(master: Master, node: Node) -> None:
    node.give(master.admissions.new_token("submit", 60, 1, print))
    assert "is for the role submit" in refusal(node, master.port)


def test_a_used_token(master: Master, node: Node, tmp_path: Path) -> None:
    token = master.admissions.new_token("execute", 60, 1, print)
    first = Node(tmp_path, "first")
    first.give(token)
    first.join(master.port)
    node.give(token)
    assert "used up" in refusal(node, master.port)


@pytest.mark.parametrize("content", ["", "hello", "roost-join.v1.cut"])
def test_an_unreadable_token(node: Node, content: str) -> None:
    node.give(content)
    assert "unreadable" in refusal(node, 1)


def test_a_token_file_that_is_none(node: Node, tmp_path: Path) -> None:
    node.token_file = tmp_path / "missing"
    assert "does not exist" in refusal(node, 1)
    node.token_file = tmp_path
    assert "is a directory" in refusal(node, 1)
    node.token_file = None


def test_a_token_and_a_name_in_use_wait_for_approval(
    master: Master, node: Node, tmp_path: Path
) -> None:
    token = master.admissions.new_token("execute", 60, 2, print)
    (tmp_path / "elsewhere").mkdir()
    first = Node(tmp_path / "elsewhere")
    first.give(token)
    first.join(master.port)
    node.give(token)
    with node.joining(master.port):
        until(lambda: node.says("is already issued to the key"))
        master.admissions.approve([master.admissions.list_pending()[0].id], print)
    assert node.identity.node == "ex1"


# --- others who answer -----------------------------------------------------------------------


def test_another_node_of_the_pool_is_no_master(tmp_path: Path, master: Master, node: Node) -> None:
    """Every node has a certificate of the pool's CA; only a master's may admit."""
    ca_key = (master.state / "ca.key").read_bytes()
    key = pki.new_key()
    evil = Master(tmp_path / "evil")
    for name, content in {
        "ca.crt": master.ca,
        "ca.key": ca_key,
        "node.key": key,
        "node.crt": pki.sign_node(ca_key, master.ca, pki.public_key(key), "execute", "ex9"),
    }.items():
        (evil.state / name).write_bytes(content)
    node.give(master.admissions.new_token("execute", 60, 1, print))
    with evil.running(), pytest.raises(NodeError, match="is 'exec-ex9' of this pool, not a master"):
        node.join(evil.port)
    assert evil.admissions.list_pending() == []


class Impostor:
    """Answers every request with the same, over TLS with a real master's certificate."""

    def __init__(self, master: Master, status: int, body: bytes) -> None:
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._answer(200, json.dumps({"ca": master.ca.decode()}).encode())

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                self._answer(status, body)

            def _answer(self, status: int, body: bytes) -> None:
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self.server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(master.state / "node.crt", master.state / "node.key")
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.port = self.server.server_address[1]

    @contextmanager
    def running(self) -> Iterator[None]:
        thread = threading.Thread(target=self.server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield
        finally:
            self.server.shutdown()
            thread.join()
            self.server.server_close()


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (200, b"hello", "is not a roost master"),
        (200, b"[]", "is not a roost master"),
        (200, b"\xff", "is not a roost master"),
        (503, b'{"error": "busy"}', "it answers 503: busy"),
        (429, b'{"error": "a\\nfake line"}', "it answers 429: a fake line"),
        (200, b"{" * 100000, "is not a roost master"),
    ],
)
def test_strange_answers_are_waited_out(
    tmp_path: Path, node: Node, status: int, body: bytes, said: str
) -> None:
    impostor = Impostor(Master(tmp_path / "master"), status, body)
    with impostor.running(), node.joining(impostor.port):
        until(lambda: node.says(said))
        node.stop.set()
    assert isinstance(node.outcome[0], Stopped)


def test_a_certificate_that_does_not_fit_is_not_kept(tmp_path: Path, node: Node) -> None:
    master = Master(tmp_path / "master")
    wrong = pki.sign_node(
        (master.state / "ca.key").read_bytes(), master.ca, pki.new_key(), "execute", "ex1"
    )
    impostor = Impostor(master, 200, json.dumps({"certificate": wrong.decode()}).encode())
    with impostor.running(), pytest.raises(NodeError, match="sent what does not fit"):
        node.join(impostor.port)
    assert set(modes(node.state)) == {"node.key"}


def test_what_speaks_no_tls_or_nothing_is_waited_out(node: Node) -> None:
    with socket.create_server(("127.0.0.1", 0)) as plain, node.joining(plain.getsockname()[1]):
        connection, _ = plain.accept()
        connection.sendall(b"220 hello\r\n")
        until(lambda: node.says("does not speak TLS 1.3"))
        connection.close()
        connection, _ = plain.accept()
        node.stop.set()
        until(lambda: node.outcome)
        connection.close()
    assert isinstance(node.outcome[0], Stopped)
