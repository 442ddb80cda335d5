"""The life of a job server: the engine is opened, its dialect served, and at the end every job is ended.

Above: `jobs`, the command.
"""

from __future__ import annotations

__all__ = ["run"]

import asyncio
import signal
import socket
import sys
from contextlib import AbstractAsyncContextManager
from importlib import import_module
from typing import Any

from intercept_py.cli.text import printable
from intercept_py.jobs import placing, serving
from intercept_py.jobs.dialects import Dialect, Options
from intercept_py.jobs.engine import Engine
from intercept_py.jobs.placing import Placing
from intercept_py.transports.http_guard import is_loopback


def run(dialect: Dialect, options: Options, listener: socket.socket | None, place: Placing | None) -> int:
    """Serve on a socket that listens, or stdio, until the client hangs up (0) or a signal comes (128 and its number).

    Raises `JobError`: `store` if the state directory cannot be used, `redis` if the workers of `place` cannot be,
    others for options that the dialect cannot use.
    """
    return asyncio.run(_serve(dialect, options, listener, place))


async def _serve(dialect: Dialect, options: Options, listener: socket.socket | None, place: Placing | None) -> int:
    received, over = _watch_signals()
    async with placing.launcher(place) as launcher:
        engine = await Engine.open(options.settings, launcher)
        try:
            for line in engine.warnings():
                _say(f"warning: {line}")
            built = import_module(dialect.module).build(engine, options)
            async with _server(built, dialect, listener, over):
                if listener is not None:
                    _announce(listener, "" if dialect.asgi else serving.PATH)
                await over.wait()
                await engine.close()  # while still serving: calls that wait for a job are answered
        finally:
            await engine.close()
    return 128 + received[0] if received else 0


def _watch_signals() -> tuple[list[int], asyncio.Event]:
    """The signals that have come, and the event that the first of them sets."""
    received: list[int] = []
    over = asyncio.Event()

    def note(number: int) -> None:
        received.append(number)
        over.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, note, number)
    return received, over


def _server(
    built: Any, dialect: Dialect, listener: socket.socket | None, over: asyncio.Event
) -> AbstractAsyncContextManager[None]:
    if listener is None:
        return serving.over_stdio(built, over)
    app = built if dialect.asgi else serving.mcp_app(built, listener.getsockname()[0])
    return serving.over_http(app, listener)


def _announce(listener: socket.socket, path: str) -> None:
    host, port = listener.getsockname()[:2]
    if not is_loopback(host):
        _say("warning: nobody is asked who he is: whoever reaches this address can run and end jobs")
    _say(f"listening on http://{f'[{host}]' if ':' in host else host}:{port}{path}")


def _say(line: str) -> None:
    sys.stderr.write(f"intercept-py jobs: {printable(line)}\n")
    sys.stderr.flush()
