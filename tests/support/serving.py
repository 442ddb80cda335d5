"""Serves an ASGI application on a free loopback port, for servers that tests start as processes."""

from __future__ import annotations

__all__ = ["serve"]

import socket
import sys
from typing import Any

import uvicorn


def serve(app: Any, path: str = "/mcp") -> None:
    """Serve until a signal comes; `listening on URL` goes to stderr when connections are taken."""
    listener = socket.create_server(("127.0.0.1", 0))
    print(f"listening on http://127.0.0.1:{listener.getsockname()[1]}{path}", file=sys.stderr, flush=True)
    # h11, since httptools hands over the blanks around a field value, which are no part of it (RFC 9110, 5.5).
    config = uvicorn.Config(app, http="h11", log_level="warning", timeout_graceful_shutdown=1)
    uvicorn.Server(config).run(sockets=[listener])
