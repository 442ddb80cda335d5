"""The receiver of a link, for tests of what a link tells its conversation."""

from __future__ import annotations

__all__ = ["Told", "asks", "notifies"]

import asyncio
import json
from typing import Any

from intercept_py.transports.conversation import Event
from intercept_py.transports.lines import TooLong
from intercept_py.wire.commands import ToUpstream

MODERN = {"io.modelcontextprotocol/protocolVersion": "2026-07-28", "io.modelcontextprotocol/clientCapabilities": {}}


def asks(ticket: int, method: str, *, modern: bool = True, **params: Any) -> ToUpstream:
    """A request as the relay sends it."""
    params = {**params, "_meta": {**MODERN, **params.get("_meta", {})}} if modern else params
    message = {"jsonrpc": "2.0", "id": ticket, "method": method, "params": params}
    return ToUpstream(json.dumps(message).encode(), False, ticket, method, params)


def notifies(method: str, **params: Any) -> ToUpstream:
    """A notification as the relay sends it."""
    message = {"jsonrpc": "2.0", "method": method, "params": params}
    return ToUpstream(json.dumps(message).encode(), False, None, method, params)


class Told:
    """A receiver that remembers. `now` is what has not been read; messages are decoded."""

    def __init__(self) -> None:
        self.now: asyncio.Queue[tuple[Any, ...]] = asyncio.Queue()

    def from_upstream(self, lines: list[bytes | TooLong], stream: int = 0, event: Event | None = None) -> None:
        self.now.put_nowait(("messages", [_decoded(line) for line in lines], stream, event))

    def opened(self, stream: int) -> None:
        self.now.put_nowait(("opened", stream))

    def status(self, stream: int, status: int, body: bytes) -> None:
        self.now.put_nowait(("status", stream, status, body))

    def ended(self, stream: int) -> None:
        self.now.put_nowait(("ended", stream))

    def failed(self, stream: int, why: str) -> None:
        self.now.put_nowait(("failed", stream, why))

    def gone(self, why: str) -> None:
        self.now.put_nowait(("gone", why))

    async def next(self) -> tuple[Any, ...]:
        """What it is told next."""
        async with asyncio.timeout(20):
            return await self.now.get()

    async def news(self) -> tuple[Any, ...]:
        """What it is told next, but for the beginnings of streams and events without messages."""
        while (told := await self.next())[0] == "opened" or (told[0] == "messages" and not told[1]):
            pass
        return told

    async def message(self, stream: int) -> Any:
        """The next message, which must come alone and on this stream."""
        kind, messages, where, _ = await self.news()
        assert (kind, where) == ("messages", stream), messages
        (message,) = messages
        return message

    async def answer(self, ticket: int, stream: int | None = None) -> list[Any]:
        """All messages up to the answer of a request; `stream`: where they come, if not where it was asked."""
        messages: list[Any] = []
        while not messages or messages[-1].get("id") != ticket or "method" in messages[-1]:
            kind, more, where, _ = await self.news()
            assert (kind, where) == ("messages", stream or ticket), more
            messages += more
        return messages


def _decoded(line: bytes | TooLong) -> Any:
    assert isinstance(line, bytes)
    assert b"\n" not in line
    try:
        return json.loads(line)
    except ValueError:
        return line
