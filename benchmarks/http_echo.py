"""A minimal MCP server over streamable HTTP for benchmarks: 2026-07-28, one tool, as fast as Python can be.

`python -m benchmarks.http_echo` prints its port and serves until stdin ends. It answers `echo` with its text and every
`tools/list` with `echo`; it is no example of how to read HTTP.
"""

from __future__ import annotations

import asyncio
import json
import sys

HEAD = b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n{"jsonrpc":"2.0","id":%b,%b}'
TOOL = {"name": "echo", "inputSchema": {"type": "object", "properties": {"text": {"type": "string"}}}}
LIST = json.dumps({"tools": [TOOL], "resultType": "complete", "ttlMs": 60000, "cacheScope": "public"}).encode()


class Server(asyncio.Protocol):
    """Reads requests by their Content-Length."""

    def __init__(self) -> None:
        self._read = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        self._read += data
        while (end := self._read.find(b"\r\n\r\n")) >= 0:
            head = self._read[:end].lower()
            size = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0])
            if len(self._read) < end + 4 + size:
                return
            body, self._read = self._read[end + 4 : end + 4 + size], self._read[end + 4 + size :]
            self._transport.write(answer(body))  # type: ignore[attr-defined]


def answer(body: bytes) -> bytes:
    """The whole HTTP response to a request's body."""
    request = body.partition(b'"id":')[2].partition(b",")[0].rstrip(b"}")
    if b'"tools/list"' in body:
        result = b'"result":' + LIST
    else:
        text = body.partition(b'"text":')[2].partition(b"}")[0]
        result = b'"result":{"content":[{"type":"text","text":%b}],"resultType":"complete"}' % text
    return HEAD % (len(request) + len(result) + 24, request, result)


async def serve() -> None:
    """Serve until stdin ends."""
    server = await asyncio.get_running_loop().create_server(Server, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    try:
        import uvloop

        uvloop.run(serve())
    except ImportError:
        asyncio.run(serve())
