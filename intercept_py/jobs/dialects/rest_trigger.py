"""The part of Trigger.dev's REST API that its own MCP server (4.8.3) needs to trigger, watch and cancel runs.

Point `TRIGGER_API_URL` at it, and set `TRIGGER_ACCESS_TOKEN` to anything that begins with `tr_pat_`. Errors are
`{"error": text}`. Ids are compared, never decoded or joined: a path with a `%` in it does not exist.

Below: `trigger_runs`, `trigger_tokens`, `trigger_fixtures`. Above: `cli.jobs`.
"""

from __future__ import annotations

__all__ = ["BODY_LIMIT", "build"]

import json

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from intercept_py.jobs.dialects import Options, trigger_objects
from intercept_py.jobs.dialects.trigger_fixtures import ORGS, PROJECTS, USER, runs_url
from intercept_py.jobs.dialects.trigger_runs import ENVIRONMENTS, ApiError, Runs
from intercept_py.jobs.dialects.trigger_tokens import Tokens
from intercept_py.jobs.engine import Engine
from intercept_py.jobs.model import JobError
from intercept_py.model import Json, JsonObject

BODY_LIMIT = 1024 * 1024
"""The longest request body, in bytes; a longer one is refused with 413."""

_LIVE = 5.0
"""Seconds that a request for news waits for some; the client asks again."""


def build(engine: Engine, options: Options) -> ASGIApp:
    """The API over the engine's runs."""
    api = _Api(Runs(engine, options.settings.root))
    app = Starlette(
        routes=api.routes(),
        middleware=[Middleware(_Literal)],
        exception_handlers={ApiError: _api_error, JobError: _job_error, HTTPException: _http_error},
    )
    # A path with a slash more is another path, and to redirect would put ids that clients wrote into a header.
    app.router.redirect_slashes = False
    return app


class _Literal:
    """Answers 404 for paths that would be decoded, so that nothing is reached by a second name."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if b"%" in scope.get("raw_path", b""):
            await JSONResponse({"error": "Not found"}, 404)(scope, receive, send)
        else:
            await self._app(scope, receive, send)


class _Api:
    def __init__(self, runs: Runs) -> None:
        self._runs = runs
        self._tokens = Tokens()

    def routes(self) -> list[Route]:
        """Every route. An id may be any text, even none, so that a wrong one is an unknown run and no unknown path."""
        project, run = "/api/v1/projects/{ref}", "{run_id:path}"
        return [
            Route("/api/v2/whoami", self._whoami),
            Route("/api/v1/orgs", self._orgs),
            Route("/api/v1/projects", self._projects),
            Route(f"{project}/branches", self._branches),
            Route(f"{project}/dev-status", self._dev_status),
            Route(f"{project}/{{environment}}/jwt", self._token, methods=["POST"]),
            Route(f"{project}/{{environment}}/workers/current", self._worker),
            Route("/api/v1/tasks/{task}/trigger", self._trigger, methods=["POST"]),
            Route("/api/v1/deployments", self._deployments),
            Route("/api/v1/runs", self._list),
            Route(f"/api/v1/runs/{run}/trace", self._trace),
            Route(f"/api/v1/runs/{run}/replay", self._replay, methods=["POST"]),
            Route(f"/api/v2/runs/{run}/cancel", self._cancel, methods=["POST"]),
            Route(f"/api/v3/runs/{run}", self._retrieve),
            Route(f"/realtime/v1/runs/{run}", self._realtime),
        ]

    async def _whoami(self, request: Request) -> JSONResponse:
        self._person(request)
        return JSONResponse(USER)

    async def _orgs(self, request: Request) -> JSONResponse:
        self._person(request)
        return JSONResponse(ORGS)

    async def _projects(self, request: Request) -> JSONResponse:
        self._person(request)
        return JSONResponse(PROJECTS)

    async def _branches(self, request: Request) -> JSONResponse:
        self._person(request)
        return JSONResponse({"branches": []})

    async def _dev_status(self, request: Request) -> JSONResponse:
        self._person(request)
        return JSONResponse({"isConnected": True})

    async def _token(self, request: Request) -> JSONResponse:
        self._person(request)
        claims = (await _body(request)).get("claims")
        scopes = claims.get("scopes") if isinstance(claims, dict) else None
        if not isinstance(scopes, list) or not all(isinstance(scope, str) for scope in scopes):
            raise ApiError(400, "claims.scopes must be a list of texts")
        return JSONResponse({"token": self._tokens.issue(_environment(request), scopes)})

    async def _worker(self, request: Request) -> JSONResponse:
        self._person(request)
        _environment(request)
        return JSONResponse(self._runs.worker(runs_url(request.path_params["ref"])))

    async def _trigger(self, request: Request) -> JSONResponse:
        task = request.path_params["task"]
        environment = self._reach(request, f"write:tasks:{task}")
        return JSONResponse(await self._runs.trigger(environment, task, await _body(request)))

    async def _deployments(self, request: Request) -> JSONResponse:
        self._reach(request, "read:deployments")
        return JSONResponse({"data": [], "pagination": {}})

    async def _list(self, request: Request) -> JSONResponse:
        return JSONResponse(self._runs.list(self._reach(request, "read:runs"), request.query_params))

    async def _trace(self, request: Request) -> JSONResponse:
        return JSONResponse(self._runs.trace(*self._run(request, "read")))

    async def _retrieve(self, request: Request) -> JSONResponse:
        return JSONResponse(self._runs.retrieve(*self._run(request, "read")))

    async def _replay(self, request: Request) -> JSONResponse:
        environment, run_id = self._run(request, "write")
        return JSONResponse(await self._runs.replay(environment, run_id, await _body(request)))

    async def _cancel(self, request: Request) -> JSONResponse:
        return JSONResponse(await self._runs.cancel(*self._run(request, "write"), by="trigger api"))

    async def _realtime(self, request: Request) -> JSONResponse:
        """One run as a table of one row, in the shape protocol of ElectricSQL, by long polling."""
        environment, run_id = self._run(request, "read")
        known = _offset(request)
        if request.query_params.get("live") == "true":
            self._runs.find(environment, run_id)
            await self._runs.changed(run_id, known, _LIVE)
        seq, row = self._runs.row(environment, run_id)
        messages: list[JsonObject] = [{"headers": {"control": "up-to-date"}}]
        if seq > known:
            operation = "insert" if known < 0 else "update"
            messages.insert(0, {"key": f"runs/{run_id}", "value": row, "headers": {"operation": operation}})
        headers = {
            "electric-handle": run_id,
            "electric-offset": f"{seq}_0",
            "electric-cursor": str(seq),
            "electric-schema": json.dumps(trigger_objects.row_columns()),
            "electric-up-to-date": "true",
            "cache-control": "no-store",
        }
        return JSONResponse(messages, headers=headers)

    def _person(self, request: Request) -> None:
        if not self._tokens.is_personal(request.headers.get("authorization", "")):
            raise ApiError(401, "Invalid or Missing Access Token")

    def _reach(self, request: Request, scope: str) -> str:
        """The environment of the request's token, which must reach `scope`."""
        environment = self._tokens.environment(request.headers.get("authorization", ""), scope)
        if environment is None:
            raise ApiError(401, "Invalid or Missing API key")
        if not environment:
            raise ApiError(403, f"this token does not reach `{scope}`")
        return environment

    def _run(self, request: Request, action: str) -> tuple[str, str]:
        """Where the request's run is, and its id."""
        run_id = request.path_params["run_id"]
        return self._reach(request, f"{action}:runs:{run_id}"), run_id


def _environment(request: Request) -> str:
    name = str(request.path_params["environment"])
    if name not in ENVIRONMENTS:
        raise ApiError(404, "Environment not found")
    return name


def _offset(request: Request) -> int:
    """The number of the last event that the client knows, -1 for none."""
    text = request.query_params.get("offset", "-1").partition("_")[0]
    if text == "-1":
        return -1
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise ApiError(400, "invalid offset")
    return int(text)


async def _body(request: Request) -> JsonObject:
    """The JSON object that the request carries; none is an empty one."""
    data = b""
    async for chunk in request.stream():
        data += chunk
        if len(data) > BODY_LIMIT:
            raise ApiError(413, f"request body is longer than {BODY_LIMIT} bytes")
    try:
        body: Json = msgspec.json.decode(data or b"{}")
    except (ValueError, RecursionError) as exc:
        raise ApiError(400, "request body is not JSON") from exc
    if not isinstance(body, dict):
        raise ApiError(400, "request body is no JSON object")
    return body


async def _api_error(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, ApiError)
    return JSONResponse({"error": str(error)}, error.status)


async def _job_error(_: Request, error: Exception) -> JSONResponse:
    """The store cannot be used. The client is told not to ask again at once, as it else would."""
    return JSONResponse({"error": str(error)}, 503, headers={"x-should-retry": "false"})


async def _http_error(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": error.detail}, error.status_code, headers=error.headers)
