"""stdin and stdout as streams of MCP messages, which end when they are told to.

The SDK's own transport reads in a thread that nothing can interrupt, so a server could not end before its client had
hung up; and it has no bound on the length of a message. What reads and writes here is a daemon thread each.

Below: `transports.lines`. Above: `serving`.
"""

from __future__ import annotations

__all__ = ["MAX_MESSAGE", "standard_streams"]

import asyncio
import fcntl
import os
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from concurrent.futures import CancelledError
from contextlib import asynccontextmanager, suppress
from typing import Any, TypeAlias, TypeVar

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from mcp.shared.message import SessionMessage
from mcp_types import jsonrpc_message_adapter

from intercept_py.transports.lines import LineReader, TooLong

MAX_MESSAGE = 16 * 1024 * 1024
"""The longest message that is read, in bytes."""

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

    A line that is no message, or a longer one than `MAX_MESSAGE`, arrives as an exception. Meanwhile 0 is empty and 1
    is stderr, so that neither jobs nor stray prints come between.
    """
    loop = asyncio.get_running_loop()
    source, sink = _set_aside(0, os.open(os.devnull, os.O_RDONLY)), _set_aside(1, os.dup(2))
    said, incoming = anyio.create_memory_object_stream[SessionMessage | Exception]()
    outgoing, told = anyio.create_memory_object_stream[SessionMessage]()
    flushed = asyncio.Event()

    def run(step: Coroutine[Any, Any, _T]) -> _T:
        try:
            return asyncio.run_coroutine_threadsafe(step, loop).result()
        finally:
            step.close()  # which was not even begun if the loop has ended

    def read() -> None:
        lines = LineReader(MAX_MESSAGE)
        while data := os.read(source, _CHUNK):
            for line in lines.feed(data):
                run(said.send(_parse(line)))
        run(said.aclose())

    def write() -> None:
        try:
            while True:
                message = run(told.receive()).message
                _write(sink, message.model_dump_json(by_alias=True, exclude_unset=True).encode() + b"\n")
        finally:
            loop.call_soon_threadsafe(flushed.set)

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


def _parse(line: bytes | TooLong) -> SessionMessage | Exception:
    if isinstance(line, TooLong):
        return ValueError(f"a message of more than {MAX_MESSAGE} bytes")
    try:
        return SessionMessage(jsonrpc_message_adapter.validate_json(line, by_name=False))
    except ValueError as exc:
        return exc


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
