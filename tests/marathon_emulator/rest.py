"""The emulator's HTTP: as much of Marathon's REST API v2 as it speaks."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from marathon_emulator.definitions import Invalid
from marathon_emulator.emulator import Emulator, Refused


class Server(ThreadingHTTPServer):
    """Serves one emulator; `login` is `user:password`, if it wants one."""

    daemon_threads = True

    def __init__(self, emulator: Emulator, port: int = 0, *, login: str = "") -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.emulator = emulator
        self.login = login
        self.asked: list[str] = []
        """Every request line, the oldest first."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that went away is no matter."""


@contextmanager
def serving(emulator: Emulator, **options: Any) -> Iterator[Server]:
    """The emulator at a URL of its own."""
    with Server(emulator, **options) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        try:
            yield server
        finally:
            server.shutdown()


class _Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""

    def _handle(self) -> None:
        self.server.asked.append(f"{self.command} {self.path}")
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length)
        try:
            self._let_in()
            if urlsplit(self.path).path == "/v2/events" and self.command == "GET":
                self._stream()
                return
            status, answer = self._route(body)
        except Refused as refusal:
            status, answer = refusal.status, refusal.body
        except Invalid as invalid:
            status = 422
            answer = {
                "message": "Object is not valid",
                "details": [{"path": path, "errors": [what]} for path, what in invalid.details],
            }
        text = json.dumps(answer).encode()
        self.send_response(status)
        if status == 401:
            self.send_header("WWW-Authenticate", 'Basic realm="Mesosphere"')
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    do_GET = do_POST = do_PUT = do_DELETE = _handle  # noqa: N815 - the base class's names

    def _let_in(self) -> None:
        right = base64.b64encode(self.server.login.encode()).decode()
        if self.server.login and self.headers.get("Authorization") != f"Basic {right}":
            raise Refused(401, {"message": "Invalid username or password."})

    def _route(self, body: bytes) -> tuple[int, Any]:
        emulator = self.server.emulator
        url = urlsplit(self.path)
        query = {key: values[-1] for key, values in parse_qs(url.query).items()}
        embed = parse_qs(url.query).get("embed", [])
        words = [unquote(word) for word in url.path.split("/") if word]
        flag = {key: query.get(key) == "true" for key in ("force", "scale")}
        match self.command, words:
            case "GET", ["v2", "info"]:
                return 200, {"name": "marathon", "version": emulator.version, "elected": True}
            case "GET", ["v2", "apps"]:
                found = emulator.listed(query.get("label", ""))
                return 200, {"apps": [_embedded(app, "apps", embed) for app in found]}
            case "POST", ["v2", "apps"]:
                return 201, emulator.create(_json(body), force=flag["force"])
            case "POST", ["v2", "tasks", "delete"]:
                asked = _json(body)
                return 200, emulator.kill(asked["ids"], scale=flag["scale"], force=flag["force"])
            case "GET", ["v2", "deployments"]:
                return 200, emulator.running()
            case "DELETE", ["v2", "deployments", id]:
                emulator.cancel(id)
                return 202, {}
            case "GET", ["v2", "apps", *path, "tasks"] if path:
                return 200, {"tasks": emulator.shown(f"/{'/'.join(path)}")["tasks"]}
            case "DELETE", ["v2", "apps", *path, "tasks", task] if path:
                return 200, emulator.kill([task], scale=flag["scale"], force=flag["force"])
            case "GET", ["v2", "apps", *path]:
                shown = emulator.shown(f"/{'/'.join(path)}")
                return 200, {"app": _embedded(shown, "app", embed) if embed else shown}
            case "PUT", ["v2", "apps", *path]:
                return 200, emulator.update(f"/{'/'.join(path)}", _json(body), force=flag["force"])
            case "DELETE", ["v2", "apps", *path]:
                # The one where force is the default.
                return 200, emulator.delete(
                    f"/{'/'.join(path)}", force=query.get("force", "true") == "true"
                )
        raise Refused(404, {"message": "Not found"})

    def _stream(self) -> None:
        """Server-sent events, until the client goes away."""
        if "text/event-stream" not in self.headers.get("Accept", ""):
            raise Refused(405, {"message": "Method Not Allowed"})
        kinds = set(parse_qs(urlsplit(self.path).query).get("event_type", ()))
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True
        self.wfile.write(b"event: event_stream_attached\r\ndata: {}\r\n\r\n")
        for event in self.server.emulator.events():
            if event is None:
                self.wfile.write(b"\r\n")  # the sign of life of a stream without events
            elif not kinds or event["eventType"] in kinds:
                text = f"event: {event['eventType']}\r\ndata: {json.dumps(event)}\r\n\r\n"
                self.wfile.write(text.encode())


def _embedded(app: dict[str, Any], kind: str, embed: list[str]) -> dict[str, Any]:
    """An app with just those of its larger parts that were asked for."""
    return {
        key: value
        for key, value in app.items()
        if key not in ("tasks", "deployments", "lastTaskFailure") or f"{kind}.{key}" in embed
    }


def _json(body: bytes) -> Any:
    try:
        found = json.loads(body)
    except ValueError as error:
        raise Refused(400, {"message": "Invalid JSON", "details": [
            {"path": "", "errors": [str(error)]}
        ]}) from None  # fmt: skip
    if not isinstance(found, dict):
        raise Refused(400, {"message": "Invalid JSON", "details": [
            {"path": "", "errors": ["error.expected.jsobject"]}
        ]})  # fmt: skip
    return found
