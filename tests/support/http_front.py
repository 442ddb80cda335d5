"""The HTTP side of the proxy on a free port, in front of a server that does what its tests tell it.

Everything between is real: sessions, policy, audit. `Scripted` is the upstream; `Front` is what tests speak to, run by
our own server or by uvicorn.
"""

from __future__ import annotations

__all__ = ["MODERN", "RUNNERS", "Front", "Link", "Scripted", "call", "front", "message", "talk"]

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any

import uvicorn

from intercept_py import state
from intercept_py.audit.log import AuditLog
from intercept_py.gateway import Mount
from intercept_py.gateway import Settings as MountSettings
from intercept_py.log import Log
from intercept_py.model import Caller, RequestId
from intercept_py.policy import loader
from intercept_py.transports.conversation import Event, Receiver
from intercept_py.transports.http_asgi import AsgiApp
from intercept_py.transports.http_gateway import Challenge, Document, Settings
from intercept_py.transports.http_server import App
from intercept_py.transports.http_service import bind, serving
from intercept_py.wire.catalogue import Catalogue
from intercept_py.wire.commands import ToUpstream
from tests.support.news import News

POLICY = 'version: "1"\ndefault: allow\ntools:\n  forbidden: {rules: [{action: deny}]}\n'
_ENVELOPE = {"io.modelcontextprotocol/protocolVersion": "2026-07-28", "io.modelcontextprotocol/clientCapabilities": {}}
MODERN = {"MCP-Protocol-Version": "2026-07-28"}
JSON = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}


def message(method: str, request: RequestId | None = 1, *, modern: bool = False, **params: Any) -> dict[str, Any]:
    """A request, or a notification where `request` is None."""
    told: dict[str, Any] = {"jsonrpc": "2.0", "method": method, "params": params}
    if request is not None:
        told["id"] = request
    if modern:
        params["_meta"] = dict(_ENVELOPE)
    return told


def call(name: str, request: RequestId | None = 1, *, modern: bool = False, **arguments: Any) -> dict[str, Any]:
    """A `tools/call`."""
    return message("tools/call", request, modern=modern, name=name, arguments=arguments)


class Link:
    """One connection to the scripted server; what it was told is in `told`."""

    crowded = False

    def __init__(self, upstream: Scripted, receiver: Receiver) -> None:
        self.receiver = receiver
        self.session = upstream.session
        self.told: list[ToUpstream] = []
        self.listening: dict[int, str | None] = {}
        self.closed = False
        self.left = False
        self._upstream = upstream

    def send(self, messages: list[ToUpstream]) -> None:
        batch = messages[:]
        messages.clear()
        for one in batch:
            self.told.append(one)
            self._upstream.told(self, one)

    def listen(self, stream: int, last_event_id: str | None) -> None:
        self.listening[stream] = last_event_id
        self._upstream.listened(self, stream)

    def unlisten(self, stream: int) -> None:
        del self.listening[stream]
        self._upstream.news()

    def leave(self) -> None:
        self.left = True
        self._upstream.news()

    async def close(self) -> None:
        self.closed = True
        self._upstream.news()

    def answer(self, ticket: int, result: Any = None, stream: int = 0, event: Event | None = None) -> None:
        """Answer a request."""
        body = {"jsonrpc": "2.0", "id": ticket, "result": result if result is not None else {}}
        self.receiver.from_upstream([json.dumps(body).encode()], stream, event)

    def fail(self, ticket: int, code: int) -> None:
        """Answer a request with an error."""
        body = {"jsonrpc": "2.0", "id": ticket, "error": {"code": code, "message": "no"}}
        self.receiver.from_upstream([json.dumps(body).encode()])

    def say(self, method: str, stream: int = 0, event: Event | None = None, **params: Any) -> None:
        """Send a notification."""
        body = {"jsonrpc": "2.0", "method": method, "params": params}
        self.receiver.from_upstream([json.dumps(body).encode()], stream, event)


Step = Callable[[Link, ToUpstream], None]


class Scripted:
    """A server in this process. Tools: `echo` answers with its arguments, `hold` not at all, others as in `tools`.

    `listed` is what `tools/list` answers; None: that it does not know this method, and that the proxy need not ask.
    Answers come from the event loop, not from within `send`. `session`: whether it keeps sessions.
    """

    def __init__(self, *, one_stream: bool = True, session: bool = True) -> None:
        self.one_stream = one_stream
        self.reusable = False
        self.headers = False
        self.session = session
        self.links: list[Link] = []
        self._mint = count(1).__next__
        self.tools: dict[str, Step] = {}
        self.listed: list[Any] | None = None
        self.act: Callable[[Link, ToUpstream], None] = self._do
        self.on_listen: Callable[[Link, int], None] = lambda link, stream: link.receiver.opened(stream)
        self._news = News()
        self.until = self._news.until

    def connect(
        self, session: bool, version: str | None, known: Catalogue, who: object
    ) -> tuple[Callable[[Receiver], Link], Callable[[], int]]:
        def link(receiver: Receiver) -> Link:
            made = Link(self, receiver)
            self.links.append(made)
            return made

        if not session and self.listed is None:
            known.replace(())
        # As real ones do: conversations that share a server have tickets of one source.
        return link, count(1).__next__ if session else self._mint

    def told(self, link: Link, one: ToUpstream) -> None:
        asyncio.get_running_loop().call_soon(self.act, link, one)
        self.news()

    def listened(self, link: Link, stream: int) -> None:
        asyncio.get_running_loop().call_soon(self.on_listen, link, stream)
        self.news()

    def _do(self, link: Link, one: ToUpstream) -> None:
        if one.ticket is None:
            return
        if one.method == "initialize":
            link.answer(one.ticket, {"protocolVersion": "2025-11-25", "capabilities": {}, "serverInfo": {}})
        elif one.method == "tools/list" and self.listed is not None:
            link.answer(one.ticket, {"tools": self.listed})
        elif one.method == "tools/call" and one.params["name"] in self.tools:
            self.tools[one.params["name"]](link, one)
        elif one.method == "tools/call" and one.params["name"] != "hold":
            text = json.dumps(one.params["arguments"])
            link.answer(one.ticket, {"content": [{"type": "text", "text": text}]})
        elif one.method != "tools/call":
            link.fail(one.ticket, -32601)

    def news(self) -> None:
        self._news()

    def methods(self) -> list[str | None]:
        """What all links were told."""
        return [one.method for link in self.links for one in link.told]

    def look(self) -> None:
        """Nothing ends here by itself."""

    async def close(self) -> None:
        """Nothing is left."""


class Guarded(Mount):
    """A mount whose callers say who they are: `Bearer NAME`, told at once; `Bearer slow NAME`, after a while.

    Nobody finds out who is slow before the `door` is open; `asked` is set when somebody begins to. `Bearer slow bug`
    raises. `revoked`: names that are not good any more.
    """

    guarded = False
    revoked: frozenset[str] = frozenset()

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.door = asyncio.Event()
        self.door.set()
        self.asked = asyncio.Event()

    def recognise(self, authorization: str | None, address: str) -> Caller | Challenge | None:
        if not self.guarded:
            return Caller(address=address)
        if authorization is None or not authorization.startswith("Bearer "):
            return Challenge(401, 'Bearer realm="mcp"')
        name = authorization.removeprefix("Bearer ")
        if name in self.revoked:
            return Challenge(401, 'Bearer error="invalid_token"')
        return None if name.startswith("slow") else Caller(principal=name, address=address)

    async def authenticate(self, authorization: str | None, address: str) -> Caller | Challenge:
        self.asked.set()
        await self.door.wait()
        await asyncio.sleep(0)
        assert authorization is not None
        name = authorization.removeprefix("Bearer slow ")
        if name == "bug":
            raise RuntimeError("a bug")
        if name == "mallory" or name in self.revoked:
            return Challenge(403, 'Bearer error="insufficient_scope"')
        return Caller(principal=name, address=address)


class Front:
    """Where the proxy listens, and what is behind it."""

    def __init__(self, upstream: Scripted, mount: Guarded, app: App, port: int) -> None:
        self.upstream = upstream
        self.mount = mount
        self.app = app
        self.port = port
        self.url = f"http://127.0.0.1:{port}/mcp"


RUNNERS = ("ours", "uvicorn-h11", "uvicorn-httptools")


@asynccontextmanager
async def front(
    folder: Path,
    runner: str = "ours",
    upstream: Scripted | None = None,
    settings: Settings | None = None,
    *,
    guarded: bool = False,
    policy: str = POLICY,
    documents: dict[str, Document] | None = None,
    **bounds: Any,
) -> AsyncIterator[Front]:
    """Serve until the context is left. `bounds` are arguments of `http_service.serving`."""
    upstream = upstream or Scripted()
    log = Log("error")
    audit = AuditLog.open(str(folder / "audit.jsonl"))
    mount = Guarded(
        "it",
        loader.load(policy.encode(), "p"),
        None,
        state.open_state("memory://"),
        audit,
        upstream,
        log,
        MountSettings(),
    )
    mount.guarded = guarded
    mounts = {"/mcp": mount}
    listener = bind("127.0.0.1", 0, authenticated=False)
    port = listener.getsockname()[1]
    settings = settings or Settings()
    keeper = asyncio.ensure_future(mount.run())
    try:
        if runner == "ours":
            app = App(mounts, settings, documents or {}, log)
            async with serving(app, listener, log, **bounds):
                yield Front(upstream, mount, app, port)
        else:
            app = App(mounts, settings, documents or {}, log)
            async with _uvicorn(AsgiApp(app), runner.removeprefix("uvicorn-"), listener):
                yield Front(upstream, mount, app, port)
    finally:
        keeper.cancel()
        await mount.close("the test is over")
        audit.close()


@asynccontextmanager
async def _uvicorn(application: Any, http: Any, listener: socket.socket) -> AsyncIterator[None]:
    config = uvicorn.Config(
        application,
        http=http,
        lifespan="on",
        ws="none",
        log_config=None,
        access_log=False,
        log_level="critical",
        timeout_graceful_shutdown=1,
    )
    server = uvicorn.Server(config)
    # The signals are pytest's.
    task = asyncio.ensure_future(server._serve([listener]))
    try:
        async with asyncio.timeout(20):
            while not server.started:
                await asyncio.sleep(0.01)
        yield
    finally:
        server.should_exit = True
        await task


async def talk(port: int, said: bytes, *, until: bytes | None = None, hang_up: bool = False) -> bytes:
    """All that is answered to some bytes, until the server hangs up or has said `until`."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    heard = b""
    try:
        async with asyncio.timeout(20):
            writer.write(said)
            if hang_up:
                writer.write_eof()
            while until is None or until not in heard:
                with suppress(ConnectionResetError):
                    if data := await reader.read(65536):
                        heard += data
                        continue
                break
    finally:
        writer.close()
    return heard
