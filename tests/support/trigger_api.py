"""A loopback stand-in of Trigger.dev's REST API: the routes that its MCP server's `cancel_run` was seen to use.

Runs exist once somebody asks for them. Every request is recorded before it is answered, also those for routes that do
not exist: a test that says "this never reached the API" looks at `requests`.
"""

from __future__ import annotations

__all__ = ["Request", "TriggerApi"]

import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, NamedTuple

TOKEN = "tr_pat_0123456789abcdef0123456789abcdef01234567"
_PROJECT_JWT = re.compile(r"/api/v1/projects/[^/]+/(dev|staging|prod|preview)/jwt")
_CANCEL = re.compile(r"/api/v2/runs/([^/]+)/cancel")
_RUN = re.compile(r"/api/v3/runs/([^/]+)")


class Request(NamedTuple):
    """One request as it arrived; `path` includes the query."""

    method: str
    path: str
    authorization: str
    body: bytes


class TriggerApi:
    """Listens on a free loopback port while it is entered."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.cancelled: list[str] = []
        api = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self._answer("GET")

            def do_POST(self) -> None:
                self._answer("POST")

            def log_message(self, *args: object) -> None:
                """Say nothing; `requests` is the log."""

            def _answer(self, method: str) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                request = Request(method, self.path, self.headers.get("Authorization", ""), body)
                status, value = api.handle(request)
                data = json.dumps(value).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})

    @property
    def url(self) -> str:
        """The value for `TRIGGER_API_URL`."""
        return f"http://127.0.0.1:{self._server.server_port}"

    @property
    def environment(self) -> dict[str, str]:
        """What the Trigger.dev server needs in its environment to use this API."""
        return {"TRIGGER_ACCESS_TOKEN": TOKEN, "TRIGGER_API_URL": self.url}

    def handle(self, request: Request) -> tuple[int, dict[str, Any]]:
        """Record the request and say what to answer."""
        self.requests.append(request)
        if request.method == "GET" and request.path == "/api/v2/whoami":
            return 200, {"userId": "user_1", "email": "agent@example.com", "dashboardUrl": self.url}
        if request.method == "POST" and _PROJECT_JWT.fullmatch(request.path):
            return 200, {"token": "a-project-token"}
        if request.method == "POST" and (cancel := _CANCEL.fullmatch(request.path)):
            self.cancelled.append(cancel[1])
            return 200, {"id": cancel[1]}
        if request.method == "GET" and (run := _RUN.fullmatch(request.path)):
            return 200, self._run(run[1])
        return 404, {"error": f"no route for {request.method} {request.path}"}

    def _run(self, ident: str) -> dict[str, Any]:
        """A run as the API retrieves it; optional fields are absent, as null would not be accepted."""
        cancelled = ident in self.cancelled
        flags = ("isQueued", "isWaiting", "isSuccess", "isFailed", "isTest")
        return {
            "id": ident,
            "status": "CANCELED" if cancelled else "EXECUTING",
            "taskIdentifier": "nightly-report",
            **dict.fromkeys(flags, False),
            "isExecuting": not cancelled,
            "isCompleted": cancelled,
            "isCancelled": cancelled,
            "createdAt": "2026-11-01T00:00:00.000Z",
            "updatedAt": "2026-11-01T00:00:01.000Z",
            "tags": [],
            "costInCents": 0,
            "baseCostInCents": 0,
            "durationMs": 0,
            "depth": 0,
            "triggerFunction": "trigger",
            "relatedRuns": {},
            "attemptCount": 1,
        }

    def __enter__(self) -> TriggerApi:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
