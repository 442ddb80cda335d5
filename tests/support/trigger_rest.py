"""A raw client of the Trigger.dev REST API: paths go out as they are written, which no client library would do."""

from __future__ import annotations

__all__ = ["PERSON", "Rest", "printed"]

import json
import time
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from typing import Any

PERSON = "tr_pat_0123456789abcdef0123456789abcdef01234567"


class Rest:
    """Requests to `url`, with the token of a person where none is given. `headers` are those of the last answer."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.headers: dict[str, str] = {}

    def __call__(
        self, method: str, path: str, body: Any = None, *, token: str = PERSON, raw: bytes | None = None
    ) -> tuple[int, Any]:
        """The status and the decoded body of the answer to one request; `raw` is sent instead of `body`."""
        connection = HTTPConnection(self.url.removeprefix("http://"), timeout=20)
        try:
            data = raw if raw is not None else None if body is None else json.dumps(body).encode()
            connection.request(method, path, data, {"Authorization": f"Bearer {token}"})
            answer: HTTPResponse = connection.getresponse()
            self.headers = {name.lower(): value for name, value in answer.getheaders()}
            return answer.status, json.loads(answer.read())
        finally:
            connection.close()

    def token(self, *scopes: str, environment: str = "dev") -> str:
        """A token that reaches `scopes`."""
        path = f"/api/v1/projects/proj_local/{environment}/jwt"
        status, body = self("POST", path, {"claims": {"scopes": list(scopes)}})
        assert status == 200, body
        return str(body["token"])

    def trigger(self, task: str, payload: Any = None, environment: str = "dev", **options: Any) -> str:
        """Start a run and return its id."""
        token = self.token("write:tasks", environment=environment)
        status, body = self(
            "POST", f"/api/v1/tasks/{task}/trigger", {"payload": payload, "options": options}, token=token
        )
        assert status == 200, body
        return str(body["id"])

    def run(self, run_id: str, environment: str = "dev") -> dict[str, Any]:
        """A run that exists."""
        status, body = self("GET", f"/api/v3/runs/{run_id}", token=self.token("read:runs", environment=environment))
        assert status == 200, body
        assert isinstance(body, dict)
        return body

    def cancel(self, run_id: str) -> tuple[int, Any]:
        """Ask a run to stop."""
        return self("POST", f"/api/v2/runs/{run_id}/cancel", token=self.token("write:runs"))

    def list(self, query: str = "", environment: str = "dev") -> tuple[int, Any]:
        """A page of runs."""
        return self("GET", f"/api/v1/runs{query}", token=self.token("read:runs", environment=environment))

    def news(self, run_id: str, query: str) -> tuple[int, Any]:
        """What the realtime stream has of a run."""
        return self("GET", f"/realtime/v1/runs/{run_id}?{query}", token=self.token(f"read:runs:{run_id}"))


def printed(path: Path, row: int, text: str) -> None:
    """Return when job number `row` of the server under `path` has printed `text`; fails after 20 seconds."""
    output, deadline = path / "state" / "jobs" / str(row) / "head", time.monotonic() + 20
    while not output.exists() or text not in output.read_text():
        assert time.monotonic() < deadline, f"job {row} has not printed {text!r}"
        time.sleep(0.01)
