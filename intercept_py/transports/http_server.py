"""The HTTP side of the proxy: paths, callers, probes; and all of it as an ASGI application.

`http_service` runs an `App` by itself; `create_app` is for other servers, and for mounting into other applications.
Below: `http_endpoint`, `http_guard`. Above: `http_service`, `cli`.
"""

from __future__ import annotations

__all__ = ["App", "Intake", "create_app"]

import asyncio
import time
from collections.abc import Callable, Coroutine, Mapping
from types import MappingProxyType
from typing import Any, TypeAlias

import msgspec

from intercept_py.log import Log
from intercept_py.model import Caller
from intercept_py.transports.http_arrivals import Arrivals
from intercept_py.transports.http_asgi import AsgiApp
from intercept_py.transports.http_endpoint import Endpoint
from intercept_py.transports.http_gateway import Challenge, Document, Gateway, Settings
from intercept_py.transports.http_guard import Guard, Head
from intercept_py.transports.http_messages import NO_STORE, Answer, Field, Reply, json_answer, problem
from intercept_py.wire import codec
from intercept_py.wire.messages import INTERNAL_ERROR

Page: TypeAlias = Callable[[], Answer]


class Intake(msgspec.Struct, frozen=True):
    """A request whose head has passed; its body may come. `caller` is None where somebody must find out first."""

    head: Head
    gateway: Gateway
    target: Endpoint | Page | Document
    caller: Caller | None

    @property
    def known(self) -> bool:
        """Whether it is known who calls."""
        return self.caller is not None


class App:
    """See the module. `mounts` are servers by the path of their endpoint, `documents` other things to read by theirs.
    `apart` are the settings of endpoints whose sessions have other bounds than `settings` says.

    All of it belongs to one event loop, and everything but `close` is plain functions that do not wait. `quieten` it
    when it is to end, and `close` it at the end.
    """

    def __init__(
        self,
        mounts: Mapping[str, Gateway],
        settings: Settings,
        documents: Mapping[str, Document],
        log: Log,
        apart: Mapping[str, Settings] = MappingProxyType({}),
    ) -> None:
        self.settings = settings
        self.arrivals = Arrivals(max(settings.bodies_limit, settings.body_limit), log)
        self._ending = False
        self._guard = Guard(local=settings.local, hosts=settings.hosts, origins=settings.origins)
        self._tasks: set[asyncio.Task[None]] = set()
        self._log = log
        self._timer: asyncio.TimerHandle | None = None
        self._mounts = mounts
        self._endpoints = {
            path: Endpoint(gateway, apart.get(path, settings), self._run, time.monotonic)
            for path, gateway in mounts.items()
        }
        idle = min(one.session_idle for one in (settings, *apart.values()))
        self._pause = min(settings.heartbeat, idle / 2)
        self._pages: dict[str, tuple[Page | Document, bool]] = {
            "/healthz": (lambda: json_answer(200, b'{"status":"alive"}'), True),
            "/readyz": (self._readiness, False),
            **{path: (document, document.open) for path, document in documents.items()},
        }

    # ---- requests

    def read(self, method: str, path: str, fields: list[Field], address: str) -> Head | Answer:
        """What the head of a request says, or its refusal; it is the same for the same head, always.

        `fields` have names in lower case and values without white space around them; `address` is the peer's.
        """
        return self._guard.read(method, path, fields, address)

    def admit(self, head: Head) -> Intake | Answer:
        """Who sends this, before anybody waits for the body: what may go on, or its refusal."""
        if self._ending:
            return problem(503, "the proxy is shutting down", code=INTERNAL_ERROR, close=True)
        endpoint = self._endpoints.get(head.path)
        if endpoint is None:
            return self._admit_to_page(head)
        caller = endpoint.gateway.recognise(head.authorization, head.address)
        if isinstance(caller, Challenge):
            return _challenge(caller)
        return Intake(head, endpoint.gateway, endpoint, caller)

    def _admit_to_page(self, head: Head) -> Intake | Answer:
        """Probes do not say which server they are about: whoever the first one knows may read them."""
        if head.path not in self._pages:
            return problem(404, "there is nothing at this path")
        if head.method not in ("GET", "HEAD"):
            return problem(405, "use GET here", (b"allow", b"GET, HEAD"))
        page, is_open = self._pages[head.path]
        gateway = next(iter(self._mounts.values()))
        if is_open or self.settings.local or self.settings.open_probes:
            return Intake(head, gateway, page, Caller(address=head.address))
        caller = gateway.recognise(head.authorization, head.address)
        return _challenge(caller) if isinstance(caller, Challenge) else Intake(head, gateway, page, caller)

    def take(self, intake: Intake, body: bytes, reply: Reply) -> None:
        """Answer a request whose body has arrived, sooner or later."""
        if self._timer is None:
            self._beat()
        caller: Caller | Challenge | None = intake.caller
        try:
            if caller is not None and isinstance(intake.target, Endpoint):
                # The body took its time, or requests before this one did: a token may have been revoked meanwhile.
                caller = intake.gateway.recognise(intake.head.authorization, intake.head.address)
            if isinstance(caller, Challenge):
                reply.whole(_challenge(caller))
            elif caller is None:
                self._run(self._identify(intake, body, reply))
            else:
                self._take(intake, caller, body, reply)
        except Exception as exc:  # a bug of ours must not take the other requests with it
            reply.whole(self._failed(exc))

    def identify(self, intake: Intake, told: Callable[[Intake | Answer], None]) -> None:
        """Tell, later, what `settled` says."""

        async def tell() -> None:
            told(await self.settled(intake))

        self._run(tell())

    async def settled(self, intake: Intake) -> Intake | Answer:
        """What may go on, or its refusal: for an intake that is not `known`, before its body is read."""
        head = intake.head
        try:
            caller = await intake.gateway.authenticate(head.authorization, head.address)
        except Exception as exc:
            return self._failed(exc)
        return _challenge(caller) if isinstance(caller, Challenge) else msgspec.structs.replace(intake, caller=caller)

    async def _identify(self, intake: Intake, body: bytes, reply: Reply) -> None:
        lost: list[bool] = []
        reply.lost = lambda: lost.append(True)
        settled = await self.settled(intake)
        if isinstance(settled, Answer):
            reply.whole(settled)
        elif not lost and settled.caller is not None:
            try:
                self._take(settled, settled.caller, body, reply)
            except Exception as exc:
                reply.whole(self._failed(exc))

    def _take(self, intake: Intake, caller: Caller, body: bytes, reply: Reply) -> None:
        target = intake.target
        if isinstance(target, Endpoint):
            target.take(intake.head, caller, body, reply)
        elif isinstance(target, Document):
            self._run(_read(target, reply))
        else:
            reply.whole(target())

    def _failed(self, exc: Exception) -> Answer:
        self._log("error", f"an HTTP request could not be handled ({type(exc).__name__})")
        return problem(500, "the proxy failed to handle this request", code=INTERNAL_ERROR)

    def _readiness(self) -> Answer:
        reasons = {path: gateway.why_not_ready() for path, gateway in self._mounts.items()}
        told = {path: why for path, why in reasons.items() if why is not None}
        if told:
            return json_answer(503, codec.encode({"status": "not ready", "reasons": told}))
        return json_answer(200, b'{"status":"ready"}')

    # ---- time

    def _beat(self) -> None:
        for endpoint in self._endpoints.values():
            endpoint.still_here()
            endpoint.sessions.sweep()
        self._timer = asyncio.get_running_loop().call_later(self._pause, self._beat)

    def _run(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (exc := task.exception()) is not None:
            self._log("error", f"the proxy failed to do something for an HTTP client ({type(exc).__name__})")

    # ---- the end

    def quieten(self) -> None:
        """Take no more requests, and end the streams on which clients only listen; what they wait for goes on."""
        self._ending = True
        for endpoint in self._endpoints.values():
            endpoint.quieten()

    async def close(self) -> None:
        """End what is left."""
        self.quieten()
        if self._timer is not None:
            self._timer.cancel()
        for endpoint in self._endpoints.values():
            endpoint.sessions.close()
        while self._tasks:
            await asyncio.wait(self._tasks)
        for endpoint in self._endpoints.values():
            endpoint.close()


async def _read(document: Document, reply: Reply) -> None:
    try:
        body = await asyncio.to_thread(document.read)
    except Exception:
        reply.whole(problem(500, "the proxy failed to read this", code=INTERNAL_ERROR))
        raise
    reply.whole(Answer(200, body, ((b"content-type", document.content_type.encode("ascii")), NO_STORE)))


def _challenge(challenge: Challenge) -> Answer:
    """Nothing but the challenge: why a token is not good is nobody's business but ours."""
    return json_answer(challenge.status, b"{}", (b"www-authenticate", challenge.challenge.encode("latin-1")))


def create_app(
    mounts: Mapping[str, Gateway],
    settings: Settings = Settings(),  # noqa: B008 - frozen
    documents: Mapping[str, Document] | None = None,
    log: Log | None = None,
) -> AsgiApp:
    """An ASGI 3 application: servers by the path of their endpoint (`/mcp`), and documents by theirs.

    The server that runs it must bound the time that a head may take; here bodies and answers are bounded.
    """
    return AsgiApp(App(mounts, settings, documents or {}, log or Log()))
