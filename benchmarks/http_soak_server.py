"""A server over streamable HTTP for the soak: both eras, sessions, GET streams, and answers that are event streams.

`python -m benchmarks.http_soak_server` prints its port and serves until stdin ends; at every line it closes the
connections that are not in use. What it says is `tests.support.echo_server`'s; a call of `hold` is never answered. It
is no example of how to read HTTP.
"""

from __future__ import annotations

import asyncio
import sys
from contextlib import suppress

from tests.support.echo_server import TOOLS, EchoServer

EVENTS = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
JSON = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n%bContent-Length: %d\r\n\r\n%b"
EMPTY = b"HTTP/1.1 %b\r\nContent-Length: 0\r\n\r\n"
CHANGED = b"notifications/tools/list_changed"


class Session:
    """What one client has: an echo server, and where it listens."""

    def __init__(self) -> None:
        self.server = EchoServer(TOOLS, 0, "both")
        self.listeners: set[asyncio.StreamWriter] = set()


class Server:
    """All sessions; requests without one share a session that is no one's."""

    def __init__(self) -> None:
        self.sessions: dict[bytes, Session] = {b"": Session()}
        self.idle: set[asyncio.StreamWriter] = set()
        self._opened = 0

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                self.idle.add(writer)
                head = await reader.readuntil(b"\r\n\r\n")
                self.idle.discard(writer)
                await self._serve(head, reader, writer)
        self.idle.discard(writer)
        writer.close()

    async def _serve(self, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        key = field(head, b"mcp-session-id")
        session = self.sessions.get(key)
        if session is None:
            writer.write(EMPTY % b"404 Not Found")
        elif head.startswith(b"POST"):
            body = await reader.readexactly(int(field(head, b"content-length")))
            await self._answer(session, body, reader, writer)
        elif head.startswith(b"DELETE"):
            del self.sessions[key]
            writer.write(EMPTY % b"200 OK")
        else:
            await _listened(session, reader, writer)

    async def _answer(
        self, session: Session, body: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        opened = b""
        if b'"method":"initialize"' in body:
            self._opened += 1
            session = self.sessions[b"%d" % self._opened] = Session()
            opened = b"Mcp-Session-Id: %d\r\n" % self._opened
        lines = session.server.take(body).splitlines()
        if not lines and b'"id":' in body:
            await reader.read()  # until the client has enough of it
            raise ConnectionError
        changes = [line for line in lines if CHANGED in line]
        for listener in session.listeners:
            listener.write(b"".join(event(line) for line in changes))
        lines = [line for line in lines if line not in changes]
        if not lines:
            writer.write(EMPTY % b"202 Accepted")
        elif len(lines) == 1:
            writer.write(JSON % (opened, len(lines[0]), lines[0]))
        else:
            writer.write(EVENTS + b"".join(event(line) for line in lines) + b"0\r\n\r\n")
        await writer.drain()


async def _listened(session: Session, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(EVENTS)
    session.listeners.add(writer)
    await reader.read()
    session.listeners.discard(writer)
    raise ConnectionError


def event(line: bytes) -> bytes:
    """A line as an event, in a chunk of its own."""
    data = b"data: %b\n\n" % line
    return b"%x\r\n%b\r\n" % (len(data), data)


def field(head: bytes, name: bytes) -> bytes:
    """The value of a header field, empty if it is not there."""
    return head.lower().partition(b"\r\n" + name + b":")[2].partition(b"\r\n")[0].strip()


async def serve() -> None:
    """Serve until stdin ends."""
    served = Server()
    server = await asyncio.start_server(served.accept, "127.0.0.1", 0, limit=1 << 24, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    while await asyncio.to_thread(sys.stdin.readline):
        for writer in served.idle:
            writer.close()


if __name__ == "__main__":
    asyncio.run(serve())
