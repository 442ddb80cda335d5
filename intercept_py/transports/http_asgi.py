"""The proxy's HTTP side as an ASGI 3 application, for servers other than ours (ASGI specification, HTTP and lifespan).

Below: `http_arrivals`, `http_messages`. Above: `http_server.create_app`.
"""

from __future__ import annotations

__all__ = ["AsgiApp"]

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Protocol, TypeAlias, TypeVar

from intercept_py.transports.http_arrivals import SMALL, Arrivals
from intercept_py.transports.http_gateway import Settings
from intercept_py.transports.http_messages import Answer, Field, Fields, Reply, crowded, nobody, too_long, too_slow

Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
Scope: TypeAlias = MutableMapping[str, Any]

IntakeT = TypeVar("IntakeT")


class Handler(Protocol[IntakeT]):
    """What answers requests, see `http_host.Handler` and `http_server.App`."""

    settings: Settings
    arrivals: Arrivals

    def read(self, method: str, path: str, fields: list[Field], address: str) -> Any: ...
    def admit(self, head: Any) -> IntakeT | Answer: ...
    async def settled(self, intake: IntakeT) -> IntakeT | Answer: ...
    def take(self, intake: IntakeT, body: bytes, reply: Reply) -> None: ...
    async def close(self) -> None: ...


class AsgiApp:
    """See the module. Where nobody sends lifespan events, `close` the `handler` when all is over."""

    def __init__(self, handler: Handler[Any]) -> None:
        self.handler = handler

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or live through the server's life."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        elif scope["type"] == "http":
            await self._answer(scope, receive, send)
        else:
            raise RuntimeError(f"this is no application for `{scope['type']}`")

    async def _live(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.shutdown":
                await self.handler.close()
            await send({"type": f"{message['type']}.complete"})
            if message["type"] == "lifespan.shutdown":
                return

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        client = scope.get("client")
        fields = [(name, value.strip(b" \t")) for name, value in scope["headers"]]
        head = self.handler.read(scope["method"], path, fields, client[0] if client else "")
        intake = head if isinstance(head, Answer) else self.handler.admit(head)
        if not isinstance(intake, Answer) and not intake.known:
            intake = await self.handler.settled(intake)
        reply = _AsgiReply(() if isinstance(head, Answer) else head.shared)
        if isinstance(intake, Answer):
            reply.whole(intake)
        else:
            body = await self._read(receive)
            if body is None:
                return
            if isinstance(body, Answer):
                reply.whole(body)
            else:
                self.handler.take(intake, body, reply)
        await reply.run(receive, send)

    async def _read(self, receive: Receive) -> bytes | Answer | None:
        """The body; its refusal; None if the client went away."""
        settings, arrivals = self.handler.settings, self.handler.arrivals
        body = bytearray()
        deadline = asyncio.timeout(settings.body_patience)
        sender = _Sender(deadline)
        try:
            async with deadline:
                while True:
                    message = await receive()
                    if message["type"] != "http.request":
                        return None
                    body += message.get("body", b"")
                    if len(body) > settings.body_limit:
                        return too_long(settings.body_limit)
                    if not message.get("more_body", False):
                        return bytes(body)
                    if len(body) > SMALL:
                        arrivals.keep(sender, len(body))
        except TimeoutError:
            return crowded() if sender.gave_way else too_slow(settings.body_patience)
        finally:
            arrivals.release(sender)


class _Sender:
    """A client whose body is being read until a deadline, see `http_arrivals.Sender`."""

    def __init__(self, deadline: asyncio.Timeout) -> None:
        self.gave_way = False
        self._deadline = deadline

    def give_way(self) -> None:
        if not self._deadline.expired():
            self.gave_way = True
            self._deadline.reschedule(0.0)


class _AsgiReply:
    """Collects what is to be sent, since who sends it may not wait, and sends it. `shared`: fields of every answer."""

    def __init__(self, shared: Fields) -> None:
        self._shared = shared
        self.lost: Callable[[], None] = nobody
        self.backlog = 0
        self._queue: deque[Message] = deque()
        self._begun = False
        self._is_cut = False
        self._sender: asyncio.Task[None] | None = None
        self._news = asyncio.Event()

    def whole(self, answer: Answer) -> None:
        if self._begun:
            self.cut()
            return
        length = ((b"content-length", b"%d" % len(answer.body)),) if answer.status != 204 else ()  # RFC 9110, 8.6
        closing = ((b"connection", b"close"),) if answer.close else ()
        self._put(answer.status, (*answer.fields, *length, *closing))
        self._queue.append({"type": "http.response.body", "body": answer.body})

    def begin(self, fields: Fields) -> None:
        self._put(200, fields)

    def _put(self, status: int, fields: Fields) -> None:
        self._begun = True
        self._queue.append({"type": "http.response.start", "status": status, "headers": [*fields, *self._shared]})
        self._news.set()

    def part(self, data: bytes) -> None:
        self.backlog += len(data)
        self._queue.append({"type": "http.response.body", "body": data, "more_body": True})
        self._news.set()

    def end(self) -> None:
        self._queue.append({"type": "http.response.body"})
        self._news.set()

    def cut(self) -> None:
        """A server that sees an answer end before its end closes the connection."""
        self._is_cut = True
        if self._sender is not None:
            self._sender.cancel()

    async def run(self, receive: Receive, send: Send) -> None:
        """Send until the end, or until the client is gone."""
        self._sender = asyncio.current_task()
        listening = asyncio.ensure_future(_until_gone(receive))
        listening.add_done_callback(lambda _: self._news.set())
        try:
            while not listening.done():
                await self._news.wait()
                self._news.clear()
                if await self._flush(send):
                    return
            self.lost()
        except asyncio.CancelledError:
            if not self._is_cut:
                self.lost()
                raise
        finally:
            listening.cancel()

    async def _flush(self, send: Send) -> bool:
        """Send what there is; whether that was all there will be."""
        while self._queue:
            message = self._queue.popleft()
            self.backlog -= len(message.get("body", b""))
            await send(message)
            if message["type"] == "http.response.body" and not message.get("more_body", False):
                return True
        return False


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
