"""`--health-port N`: the node's health over HTTP, for what can only ask that way."""

from __future__ import annotations

import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from roost_node import health, logs
from roost_node.vocab import Role


def serve(port: int, role: Role, node: str, master: str) -> int:
    """GET /health: 200 or 503, and a JSON body that says why. Runs until it is stopped."""

    class Handler(BaseHTTPRequestHandler):
        timeout = 10

        def do_GET(self) -> None:
            if self.path.rstrip("/") not in ("", "/health"):
                self.send_error(404)
                return
            sentence = health.why_not(role, node, master)
            body = json.dumps({"healthy": not sentence, "role": role, "why": sentence}).encode()
            self.send_response(503 if sentence else 200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """A health check every few seconds is no news."""

    logs.say(f"health on port {port}")
    ThreadingHTTPServer(("", port), Handler).serve_forever()
    return 0
