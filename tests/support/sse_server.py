"""The server of `sdk_server` over HTTP+SSE (MCP 2024-11-05), on a free loopback port that it names on stderr."""

from __future__ import annotations

from tests.support.sdk_server import server
from tests.support.serving import serve

if __name__ == "__main__":
    serve(server.sse_app(), "/sse")
