"""stdin and stdout as streams of MCP messages, which end when they are told to.

The SDK's own transport reads in a thread that nothing can interrupt, so a server could not end before its client had
hung up; it has no bound on the length of a message, nor on how many wait; and it is silent about what it cannot parse.
What reads and writes here is a daemon thread each.

Below: `transports.lines`, `wire.codec`. Above: `serving`.
"""

from __future__ import annotations

__all__ = ["MAX_MESSAGE", "standard_streams"]

import asyncio
import fcntl
import os
import select
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from concurrent.futures import CancelledError
from contextlib import asynccontextmanager, suppress
from typing import Any, TypeAlias, TypeVar

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from mcp.shared.message import SessionMessage
from mcp_types import (
    ErrorData,
    JSONRPCError,
    JSONRPCMessage,
    JSONRPCNotification,
    JSONRPCRequest,
    JSONRPCResponse,
    RequestId,
    jsonrpc_message_adapter,
)

from intercept_py.errors import ProtocolError
from intercept_py.transports.lines import LineReader, TooLong
from intercept_py.wire.codec import INVALID_REQUEST, decode, guess_id, peek_id

MAX_MESSAGE = 16 * 1024 * 1024
"""The longest message that is read, in bytes."""

_IN_WORK = 256
"""So many requests are worked at; further ones are not even read until one of them is answered."""
_UNREAD = 16
"""Nothing is read either while so many messages wait for the client to read them."""
_LOOK = 1.0
"""Seconds after which a server that does not read looks whether its client has hung up."""
_CHUNK = 64 * 1024
_FLUSH_TIME = 1.0
"""Seconds that the last answers have to get out."""

_ENDINGS = (
    anyio.EndOfStream,
    anyio.BrokenResourceError,
    anyio.ClosedResourceError,
    CancelledError,  # the loop is ending
    RuntimeError,  # the loop has ended
    OSError,  # nobody is at the other end of the pipe
)

_T = TypeVar("_T")
Incoming: TypeAlias = MemoryObjectReceiveStream[SessionMessage | Exception]
Outgoing: TypeAlias = MemoryObjectSendStream[SessionMessage]


@asynccontextmanager
async def standard_streams() -> AsyncIterator[tuple[Incoming, Outgoing]]:
    """What the client says, until it hangs up, and what it is told.

    A line that is no message, or a longer one than `MAX_MESSAGE`, is answered with an error: under its id where that
    is certain, else under null. Meanwhile 0 is empty and 1 is stderr, so that neither jobs nor stray prints come
    between.
    """
    loop = asyncio.get_running_loop()
    source, sink = _set_aside(0, os.open(os.devnull, os.O_RDONLY)), _set_aside(1, os.dup(2))
    said, incoming = anyio.create_memory_object_stream[SessionMessage | Exception]()
    outgoing, told = anyio.create_memory_object_stream[SessionMessage]()
    traffic, flushed = _Traffic(source, said, outgoing, told), asyncio.Event()

    def run(step: Coroutine[Any, Any, _T]) -> _T:
        try:
            return asyncio.run_coroutine_threadsafe(step, loop).result()
        finally:
            step.close()  # which was not even begun if the loop has ended

    def read() -> None:
        lines = LineReader(MAX_MESSAGE)
        while data := os.read(source, _CHUNK):
            for line in lines.feed(data):
                run(traffic.hear(line))
        run(said.aclose())

    def write() -> None:
        try:
            while True:
                message = run(traffic.next_told())
                _write(sink, message.model_dump_json(by_alias=True, exclude_unset=True).encode() + b"\n")
        finally:
            loop.call_soon_threadsafe(flushed.set)
            loop.call_soon_threadsafe(told.close)  # or who has more to say would wait for ever

    _start(read)
    _start(write)
    yield incoming, outgoing
    await outgoing.aclose()
    with suppress(TimeoutError):
        await asyncio.wait_for(flushed.wait(), _FLUSH_TIME)


def _set_aside(standard: int, stand_in: int) -> int:
    """Our own descriptor for what was at `standard`, where `stand_in` is from now on."""
    private = fcntl.fcntl(standard, fcntl.F_DUPFD_CLOEXEC, 3)
    os.dup2(stand_in, standard)
    os.close(stand_in)
    return private


class _Traffic:
    """What is said and told, and the requests in between: nothing more is heard while there are too many of them."""

    def __init__(
        self,
        source: int,
        said: MemoryObjectSendStream[SessionMessage | Exception],
        outgoing: Outgoing,
        told: MemoryObjectReceiveStream[SessionMessage],
    ) -> None:
        self._source, self._said, self._outgoing, self._told = source, said, outgoing, told
        self._in_work: set[str] = set()
        self._less = asyncio.Event()

    async def hear(self, line: bytes | TooLong) -> None:
        """Pass on a line of the client, or answer that it cannot be."""
        while self._is_busy() and not _hung_up(self._source):
            self._less.clear()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._less.wait(), _LOOK)
        try:
            message = _parse(line)
            self._note(message)
        except ProtocolError as exc:
            error = ErrorData(code=exc.code, message=str(exc))
            await self._outgoing.send(SessionMessage(JSONRPCError(jsonrpc="2.0", id=exc.request_id, error=error)))
        else:
            await self._said.send(SessionMessage(message))

    def _is_busy(self) -> bool:
        streams = self._outgoing.statistics()
        if not streams.open_receive_streams:
            return False  # nobody is told anything any more: what is left to hear is that the client has gone
        return len(self._in_work) >= _IN_WORK or streams.tasks_waiting_send >= _UNREAD

    async def next_told(self) -> JSONRPCMessage:
        """What the client is told next."""
        message = (await self._told.receive()).message
        if isinstance(message, JSONRPCResponse | JSONRPCError) and message.id is not None:
            self._in_work.discard(_key(message.id))
        self._less.set()
        return message

    def _note(self, message: JSONRPCMessage) -> None:
        match message:
            case JSONRPCRequest(id=ident):
                if _key(ident) in self._in_work:
                    raise ProtocolError(INVALID_REQUEST, "another request has this id and is not answered yet")
                self._in_work.add(_key(ident))
            case JSONRPCNotification(method="notifications/cancelled", params={"requestId": str() | int() as ident}):
                self._in_work.discard(_key(ident))  # it is never answered


def _key(ident: RequestId) -> str:
    """Ids as the SDK tells them apart, to which `1` and `"1"` are the same."""
    return str(ident)


def _parse(line: bytes | TooLong) -> JSONRPCMessage:
    """The message in a line. Raises `ProtocolError`."""
    if isinstance(line, TooLong):
        text = f"message is longer than {MAX_MESSAGE} bytes"
        raise _refused(INVALID_REQUEST, text, guess_id(line.edges))
    try:
        value = decode(line)
        message: JSONRPCMessage = jsonrpc_message_adapter.validate_python(value, by_name=False)
        if isinstance(message, JSONRPCNotification) and "id" in value:
            raise ProtocolError(INVALID_REQUEST, "the id of a message must be a text or an integer")
    except ProtocolError as exc:
        raise _refused(exc.code, str(exc), _certain_id(line)) from None
    except ValueError:
        raise _refused(INVALID_REQUEST, "message is no JSON-RPC request or notification", _certain_id(line)) from None
    return message


def _certain_id(line: bytes) -> RequestId | None:
    found = peek_id(line)
    return guess_id(line) if found is None else found


def _refused(code: int, text: str, ident: RequestId | None) -> ProtocolError:
    error = ProtocolError(code, text)
    error.request_id = ident
    return error


def _hung_up(source: int) -> bool:
    poll = select.poll()
    poll.register(source, 0)  # POLLHUP is told unasked
    return bool(poll.poll(0))


def _write(sink: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(sink, view) :]


def _start(body: Callable[[], None]) -> None:
    """Run `body` in a thread until a stream or a descriptor is closed."""

    def target() -> None:
        with suppress(*_ENDINGS):
            body()

    threading.Thread(target=target, daemon=True).start()
