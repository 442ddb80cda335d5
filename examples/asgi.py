"""The proxy inside another ASGI application, which is served by any ASGI server, such as uvicorn:

    uvicorn --app-dir examples --timeout-graceful-shutdown 10 asgi:app

Agents call http://127.0.0.1:8000/tools/mcp. Without a `door` (see `intercept_py.identity.Authenticator`) requests must
name this machine as their host: keep it on loopback. Who serves it bounds how long the head of a request may take,
and how long requests under way may take to come to their end.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route

from intercept_py import policy_file, state
from intercept_py.audit.log import AuditLog
from intercept_py.gateway import Mount as Server
from intercept_py.gateway import Settings
from intercept_py.log import Log
from intercept_py.transports.http_server import create_app
from intercept_py.upstreams import Command

POLICY = Path(__file__).with_name("jobs-policy.yaml")
FOLDER = os.environ.get("JOBS", "jobs")
COMMAND = [sys.executable, "-m", "intercept_py", "jobs", "serve", "--dialect", "orchestration", "--state-dir", FOLDER]

log = Log()
policy = policy_file.read(str(POLICY))
audit = AuditLog.open(os.environ.get("AUDIT", "audit.jsonl"))
server = Server(
    server="jobs",
    policy=policy,
    watch=policy_file.Watch(str(POLICY), policy.revision),  # a changed policy is taken while it runs
    state=state.open_state("memory://"),
    audit=audit,
    upstream=Command(COMMAND, os.environ, 10 * 1024 * 1024, log),
    log=log,
    settings=Settings(),
)
proxy = create_app({"/mcp": server}, log=log)


@asynccontextmanager
async def life(_: Starlette) -> AsyncIterator[None]:
    """What a mount needs besides requests: `run` looks at time and at the policy file, `close` ends its server."""
    keeper = asyncio.create_task(server.run())
    yield
    await proxy.handler.close()
    keeper.cancel()
    await server.close("the application ends")
    audit.close()


app = Starlette(
    routes=[Route("/", lambda _: PlainTextResponse("tools are at /tools/mcp")), Mount("/tools", app=proxy)],
    lifespan=life,
)
