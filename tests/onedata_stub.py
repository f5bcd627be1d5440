"""A stub of Onedata: one Onezone and one Oneprovider behind one port, a space kept in memory.

It is a stub because neither can be had for a test: a real deployment is two clusters of Erlang and
Couchbase. What it answers is written to the REST API that Onedata publishes (Onezone:
`configuration`, `tokens/infer_access_token_scope`; Oneprovider: `configuration`, `lookup-file-id`,
`data`, and `cdmi` for renaming), with the errors of its services. Onedata's own client,
onedatafilerestclient, is what tests/unit/test_onedata_stub.py checks it with. What it cannot tell:
how fast a real one is, what its storage does, and whatever the published pages leave out.

It also misbehaves on demand: see Behaviour. Standard library only: it runs in a container, too:

    python3 onedata_stub.py --domain oneprovider --port 443 --certificate C --key K --token FILE

`PUT /stub/behave` changes its behaviour, `PUT /stub/files/PATH` and `GET /stub/files/PATH` reach
the space's files past the API, `PUT /stub/many/N/PATH` makes N small ones, `PUT /stub/tokens` says
which tokens are known, and until when; `GET /stub/seen` tells what was asked.
"""

from __future__ import annotations

import argparse
import errno
import itertools
import json
import re
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, fields, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs, unquote, urlsplit

SPACE: Final = "johns-space"
SPACE_ID: Final = "2d6f1c0spaceid"
PROVIDER_ID: Final = "9a1bprovider"
#: No page of a listing is longer.
PAGE: Final = 1000
#: How much of a file one piece of an answer has.
_PIECE: Final = 1 << 18

#: What attributes were called before 21.02.5.
_OLD_NAMES: Final = {
    "fileId": "file_id", "parentFileId": "parent_id", "posixPermissions": "mode",
}  # fmt: skip


@dataclass(frozen=True)
class Behaviour:
    """What is wrong with it: by default nothing."""

    version: str = "21.02.8"
    online: bool = True
    delay: float = 0.0
    """Seconds before each answer of the Oneprovider."""
    hang: bool = False
    """Content is promised and never sent."""
    resets: int = 0
    """So many of the next answers with content break off half-way, with a reset."""
    refuse_writes: str = ""
    """An errno such as `enospc` with which content is refused."""
    provider_only: bool = False
    """The Onezone does not say that it is one: the name is its Oneprovider's."""
    unavailable: bool = False
    """The Oneprovider answers 503 to everything."""


@dataclass
class Node:
    """A file or directory of the space."""

    id: str
    name: str
    parent: Node | None
    directory: bool = False
    data: bytearray = field(default_factory=bytearray)
    children: dict[str, Node] = field(default_factory=dict)
    mode: str = "0664"
    mtime: int = 1_700_000_000

    def attributes(self) -> dict[str, Any]:
        times = dict.fromkeys(("atime", "mtime", "ctime", "creationTime"), self.mtime)
        return {
            "fileId": self.id, "name": self.name, "type": "DIR" if self.directory else "REG",
            "size": len(self.data), "posixPermissions": self.mode,
            "parentFileId": self.parent.id if self.parent else None,
            "displayUid": 1000, "displayGid": 1000, "hardlinkCount": 1, "index": self.name,
            "ownerUserId": "john", "originProviderId": PROVIDER_ID, "directShareIds": [], **times,
        }  # fmt: skip


class Failure(Exception):
    """An answer that is an error of Onedata's."""

    def __init__(self, status: int, id: str, details: object = None) -> None:
        super().__init__(id)
        self.status = status
        self.error = {"id": id, "description": f"{id}: see details"}
        if details is not None:
            self.error["details"] = details  # type: ignore[assignment]


def _posix(name: str) -> Failure:
    return Failure(400, "posix", {"errno": name})


class Space:
    """The space's tree. One lock: its callers are threads."""

    def __init__(self) -> None:
        self.root = Node(SPACE_ID, SPACE, None, directory=True, mode="0775")
        self.by_id = {SPACE_ID: self.root}
        self._numbers = itertools.count(1)

    def find(self, path: str) -> Node:
        node = self.root
        for name in (step for step in path.split("/") if step):
            if name not in node.children:
                raise _posix("enoent")
            node = node.children[name]
        return node

    def node(self, id: str) -> Node:
        if id not in self.by_id:
            raise _posix("enoent")
        return self.by_id[id]

    def create(self, path: str, *, directory: bool = False, parents: bool = False) -> Node:
        above, _, name = path.strip("/").rpartition("/")
        if not name:
            raise _posix("eexist")
        try:
            parent = self.find(above)
        except Failure:
            if not parents:
                raise
            parent = self.create(above, directory=True, parents=True)
        if not parent.directory:
            raise _posix("enotdir")
        if name in parent.children:
            raise _posix("eexist")
        made = Node(f"file{next(self._numbers)}", name, parent, directory)
        made.mode = "0775" if directory else "0664"
        made.mtime = int(time.time())
        parent.children[name] = self.by_id[made.id] = made
        return made

    def write(self, path: str, data: bytes) -> None:
        """A file with this content, whatever was there."""
        try:
            node = self.find(path)
        except Failure:
            node = self.create(path, parents=True)
        node.data = bytearray(data)

    def remove(self, node: Node) -> None:
        if node.parent is None:
            raise _posix("eperm")
        del node.parent.children[node.name]
        below = [node]
        while below:  # a directory goes with all that is in it
            gone = below.pop()
            below += gone.children.values()
            del self.by_id[gone.id]

    def move(self, source: str, target: str) -> None:
        node = self.find(source)
        above, _, name = target.strip("/").rpartition("/")
        parent = self.find(above)
        if name in parent.children:
            self.remove(parent.children[name])
        if node.parent is not None:
            del node.parent.children[node.name]
        node.name, node.parent = name, parent
        parent.children[name] = node


class Stub:
    """The two services; serves in threads of its own until `close`."""

    def __init__(
        self,
        certificate: Path,
        key: Path,
        *,
        domain: str = "",
        host: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        self.space = Space()
        self.behaviour = Behaviour()
        #: Each token, and until when it is good, in seconds since 1970; None: forever.
        self.tokens: dict[str, float | None] = {}
        self.readonly_tokens: set[str] = set()
        #: Method and path of each request, with its range or offset.
        self.seen: list[str] = []
        self.lock = threading.RLock()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        stub = self

        class Handler(_Handler):
            pass

        Handler.stub = stub

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 128

            def finish_request(self, request: Any, client_address: Any) -> None:
                # The handshake belongs to the connection's own thread, or one client holds up all.
                try:
                    secure = context.wrap_socket(request, server_side=True)
                except (OSError, ssl.SSLError):
                    return
                with secure:
                    super().finish_request(secure, client_address)

            def handle_error(self, request: Any, client_address: Any) -> None:
                """A client that went away is no event."""

        self._server = Server((host, port), Handler)
        self.port = self._server.server_address[1]
        self.domain = domain or f"localhost:{self.port}"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        self.behaviour = Behaviour()  # nothing hangs any longer
        self._server.shutdown()
        self._server.server_close()

    def behave(self, **changes: Any) -> None:
        self.behaviour = replace(self.behaviour, **changes)

    @contextmanager
    def misbehaving(self, **changes: Any) -> Iterator[None]:
        self.behave(**changes)
        try:
            yield
        finally:
            self.behaviour = Behaviour()

    def check(self, token: str) -> Failure | None:
        """What is wrong with a token: an error of the token's own."""
        if token not in self.tokens:
            return Failure(400, "badToken")
        until = self.tokens[token]
        if until is not None and until < time.time():
            caveat = {"caveat": {"type": "time", "validUntil": int(until)}}
            return Failure(400, "tokenCaveatUnverified", caveat)
        return None

    def takes_reset(self) -> bool:
        with self.lock:
            if self.behaviour.resets <= 0:
                return False
            self.behave(resets=self.behaviour.resets - 1)
            return True


class _Handler(BaseHTTPRequestHandler):
    """One connection of a client."""

    stub: Stub
    protocol_version = "HTTP/1.1"
    # Headers and content leave together, and at once.
    disable_nagle_algorithm = True
    wbufsize = 1 << 16

    def log_message(self, format: str, *args: object) -> None:
        """What was asked is in Stub.seen."""

    def _serve(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        self.body = self.rfile.read(length) if length else b""
        parts = urlsplit(self.path)
        self.query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        path = unquote(parts.path)
        extra = self.headers.get("Range") or self.query.get("offset", "")
        try:
            if path.startswith("/stub/"):
                self._control(path.removeprefix("/stub/"))
                return
            with self.stub.lock:
                self.stub.seen.append(f"{self.command} {path} {extra}".strip())
            self._route(path)
        except Failure as failure:
            self._json(failure.status, {"error": failure.error})

    def _route(self, path: str) -> None:
        for pattern, method, authorized, answer in _ROUTES:
            found = re.fullmatch(pattern, path)
            if found and method == self.command:
                if "/onezone/" not in pattern:
                    self._oneprovider(authorized)
                answer(self, *found.groups(default=""))
                return
        raise Failure(404, "notFound")

    do_GET = do_POST = do_PUT = do_DELETE = _serve  # noqa: N815

    def _oneprovider(self, authorized: bool) -> None:
        behaviour = self.stub.behaviour
        if behaviour.delay:
            time.sleep(behaviour.delay)
        if behaviour.unavailable:
            raise Failure(503, "serviceUnavailable")
        if not authorized:
            return
        token = self.headers.get("X-Auth-Token")
        if token is None:
            raise Failure(401, "unauthorized")
        wrong = self.stub.check(token)
        if wrong is not None:
            raise Failure(401, "unauthorized", {"authError": wrong.error})
        if token in self.stub.readonly_tokens and self.command in ("PUT", "DELETE"):
            raise Failure(403, "forbidden")

    def _json(self, status: int, value: object = None) -> None:
        self._bytes(
            status, b"" if value is None else json.dumps(value).encode(), "application/json"
        )

    def _bytes(self, status: int, data: bytes, kind: str = "application/octet-stream") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _said(self) -> dict[str, Any]:
        try:
            said = json.loads(self.body or b"{}")
        except ValueError:
            raise Failure(400, "malformedData") from None
        return said if isinstance(said, dict) else {}

    # --- Onezone ---------------------------------------------------------------------------------

    def zone_configuration(self) -> None:
        if self.stub.behaviour.provider_only:
            raise Failure(404, "notFound")
        self._json(200, {"name": "stub", "domain": self.stub.domain, "version": "21.02.8"})

    def token_scope(self) -> None:
        token = str(self._said().get("token", ""))
        wrong = self.stub.check(token)
        if wrong is not None:
            details = {"key": "token", "tokenError": wrong.error}
            raise Failure(400, "badValueToken", details)
        behaviour = self.stub.behaviour
        until = self.stub.tokens[token]
        self._json(200, {
            "validUntil": None if until is None else int(until),
            "dataAccessScope": {
                "readonly": token in self.stub.readonly_tokens,
                "spaces": {SPACE_ID: {
                    "name": SPACE, "supports": {PROVIDER_ID: {"readonly": False}},
                }},
                "providers": {PROVIDER_ID: {
                    "name": "stub", "domain": self.stub.domain, "version": behaviour.version,
                    "online": behaviour.online,
                }},
            },
        })  # fmt: skip

    # --- Oneprovider -----------------------------------------------------------------------------

    def provider_configuration(self) -> None:
        self._json(200, {
            "providerId": PROVIDER_ID, "name": "stub", "domain": self.stub.domain,
            "onezoneDomain": self.stub.domain, "version": self.stub.behaviour.version,
        })  # fmt: skip

    def lookup(self, space: str, path: str) -> None:
        if space not in (SPACE, SPACE_ID, f"{SPACE}@{SPACE_ID}"):
            raise _posix("enoent")
        with self.stub.lock:
            self._json(200, {"fileId": self.stub.space.find(path).id})

    def attributes(self, id: str) -> None:
        with self.stub.lock:
            self._json(200, self._asked_for(self.stub.space.node(id)))

    def _asked_for(self, node: Node) -> dict[str, Any]:
        known = node.attributes()
        if tuple(map(int, self.stub.behaviour.version.split("."))) < (21, 2, 5):
            return {_OLD_NAMES.get(name, name): value for name, value in known.items()}
        asked = self._said().get("attributes", list(known))
        unknown = [name for name in asked if name not in known]
        if unknown:
            raise Failure(400, "badValueNotAllowed", {"key": "attributes", "allowed": list(known)})
        return {name: known[name] for name in asked}

    def set_attributes(self, id: str) -> None:
        said = self._said()
        if set(said) != {"mode"}:
            raise Failure(400, "badValueNotAllowed", {"key": "mode"})
        with self.stub.lock:
            self.stub.space.node(id).mode = str(said["mode"])
        self._json(204)

    def children(self, id: str) -> None:
        limit = int(self.query.get("limit", PAGE))
        if not 1 <= limit <= PAGE:
            raise Failure(400, "badValueNotInRange", {"key": "limit", "low": 1, "high": PAGE})
        start = int(self.query.get("token", "0"))
        with self.stub.lock:
            node = self.stub.space.node(id)
            if not node.directory:
                raise _posix("enotdir")
            nodes = list(itertools.islice(node.children.values(), start, start + limit))
            is_last = start + limit >= len(node.children)
            page = [self._asked_for(child) for child in nodes]
        token = None if is_last else str(start + limit)
        self._json(200, {"children": page, "isLast": is_last, "nextPageToken": token})

    def content(self, id: str) -> None:
        with self.stub.lock:
            node = self.stub.space.node(id)
            if node.directory:
                raise _posix("eisdir")
            data = node.data
        start, end = self._range(len(data))
        self.send_response(206 if self.headers.get("Range") else 200)
        self.send_header("Content-Type", "application/octet-stream")
        self.send_header("Content-Length", str(end - start))
        self.end_headers()
        stop = (start + end) // 2 if self.stub.takes_reset() else end
        while self.stub.behaviour.hang:
            self.wfile.flush()
            time.sleep(0.05)
        with memoryview(data) as view:
            for at in range(start, stop, _PIECE):
                self.wfile.write(view[at : min(at + _PIECE, stop)])
        if stop != end:
            self._reset()

    def _range(self, size: int) -> tuple[int, int]:
        found = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range") or "")
        if not found:
            return 0, size
        start, end = int(found[1]), min(int(found[2]) + 1, size)
        if start >= size:
            raise Failure(416, "badValueNotInRange", {"key": "range", "low": 0, "high": size})
        return start, end

    def _reset(self) -> None:
        """End the connection with a reset: what a router or a provider that dies does."""
        self.wfile.flush()
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        with suppress(OSError):
            self.connection.close()
        self.close_connection = True

    def put_content(self, id: str) -> None:
        refused = self.stub.behaviour.refuse_writes
        if refused:
            assert refused.upper() in errno.errorcode.values()
            raise _posix(refused)
        with self.stub.lock:
            node = self.stub.space.node(id)
            if node.directory:
                raise _posix("eisdir")
            if "offset" in self.query:
                at = int(self.query["offset"])
                node.data.extend(bytes(max(0, at - len(node.data))))
                node.data[at : at + len(self.body)] = self.body
            else:
                node.data = bytearray(self.body)
            node.mtime = int(time.time())
        self._json(204)

    def create(self, id: str, path: str) -> None:
        if id != SPACE_ID:
            raise _posix("enoent")
        kind = self.query.get("type", "REG")
        parents = self.query.get("create_parents") == "true"
        with self.stub.lock:
            made = self.stub.space.create(path, directory=kind == "DIR", parents=parents)
            made.mode = self.query.get("mode", made.mode)
            self._json(201, {"fileId": made.id})

    def remove(self, id: str) -> None:
        with self.stub.lock:
            self.stub.space.remove(self.stub.space.node(id))
        self._json(204)

    def move(self, target: str) -> None:
        source = str(self._said().get("move", ""))
        prefix = f"{SPACE}@{SPACE_ID}/"
        if not (source.startswith(prefix) and target.startswith(prefix)):
            raise Failure(400, "badValueNotAllowed", {"key": "move"})
        with self.stub.lock:
            self.stub.space.move(source.removeprefix(prefix), target.removeprefix(prefix))
        self._json(201, {})

    # --- past the API ----------------------------------------------------------------------------

    def _control(self, path: str) -> None:
        what, _, rest = path.partition("/")
        with self.stub.lock:
            match self.command, what:
                case "PUT", "behave":
                    self.stub.behaviour = Behaviour(**self._said())
                    self._json(200, asdict(self.stub.behaviour))
                case "PUT", "tokens":
                    self.stub.tokens = self._said()
                    self._json(204)
                case "PUT", "files":
                    self.stub.space.write(rest, self.body)
                    self._json(204)
                case "PUT", "many":
                    number, _, directory = rest.partition("/")
                    for name in range(int(number)):
                        self.stub.space.write(f"{directory}/f{name}", b"x")
                    self._json(204)
                case "GET", "files":
                    self._bytes(200, bytes(self.stub.space.find(rest).data))
                case "GET", "seen":
                    self._json(200, self.stub.seen)
                case _:
                    names = [each.name for each in fields(Behaviour)]
                    raise Failure(404, "notFound", {"behaviours": names})


_Answer = Callable[..., None]
_OP: Final = "/api/v3/oneprovider"
#: Path, method, whether it needs a token, and who answers.
_ROUTES: Final[tuple[tuple[str, str, bool, _Answer], ...]] = (
    ("/api/v3/onezone/configuration", "GET", False, _Handler.zone_configuration),
    ("/api/v3/onezone/tokens/infer_access_token_scope", "POST", False, _Handler.token_scope),
    (f"{_OP}/configuration", "GET", False, _Handler.provider_configuration),
    (f"{_OP}/lookup-file-id/([^/]+)(?:/(.*))?", "POST", True, _Handler.lookup),
    (f"{_OP}/data/([^/]+)/children", "GET", True, _Handler.children),
    (f"{_OP}/data/([^/]+)/content", "GET", True, _Handler.content),
    (f"{_OP}/data/([^/]+)/content", "PUT", True, _Handler.put_content),
    (f"{_OP}/data/([^/]+)/path/(.+)", "PUT", True, _Handler.create),
    (f"{_OP}/data/([^/]+)", "GET", True, _Handler.attributes),
    (f"{_OP}/data/([^/]+)", "PUT", True, _Handler.set_attributes),
    (f"{_OP}/data/([^/]+)", "DELETE", True, _Handler.remove),
    ("/cdmi/(.+)", "PUT", True, _Handler.move),
)


def main() -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser()
    for name in ("domain", "certificate", "key", "token"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--port", type=int, default=443)
    asked = parser.parse_args()
    stub = Stub(
        Path(asked.certificate), Path(asked.key), domain=asked.domain, host="", port=asked.port
    )
    stub.tokens = {Path(asked.token).read_text().strip(): None}
    print(f"serving {SPACE} as {asked.domain}", flush=True)
    threading.Event().wait()


if __name__ == "__main__":
    main()
