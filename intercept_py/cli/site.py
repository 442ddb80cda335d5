"""Running servers behind one port: signals, metrics and traces, probes, and the end in good order.

Below: `gateway`, `metrics`, `telemetry`, the HTTP transports. Above: `service`, `serve`.
"""

from __future__ import annotations

__all__ = ["MAX_CHILDREN", "MAX_SESSIONS", "Observers", "Served", "reach", "run", "serve", "signals", "url_of"]

import asyncio
import signal
import socket
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import msgspec

from intercept_py import __version__, observing
from intercept_py.cli.garbage import collect_rarely
from intercept_py.gateway import Mount
from intercept_py.identity import Authenticator
from intercept_py.identity.client_credentials import ClientCredentials, Grant
from intercept_py.log import Log
from intercept_py.metrics import MEDIA_TYPE, Metrics
from intercept_py.observing import Observer
from intercept_py.policy.rules import Policy
from intercept_py.state import State
from intercept_py.state.limit_use import Store
from intercept_py.telemetry import Telemetry
from intercept_py.transports.http_address import parse_fields
from intercept_py.transports.http_client import HttpClient
from intercept_py.transports.http_gateway import Document, Settings
from intercept_py.transports.http_server import App
from intercept_py.transports.http_service import new_event_loop, serving
from intercept_py.upstreams import OldUrl, Upstream, Url

_METADATA = "application/json"
MAX_SESSIONS = 10_000
MAX_CHILDREN = 64
"""Sessions at a time where nobody says how many: of a server with a URL, and of one that is a process for each."""


def reach(
    url: str, fields: Iterable[tuple[str, str]], grant: Grant | None, log: Log, *, limit: int, sse: bool, alone: bool
) -> Upstream:
    """A server that speaks HTTP. `alone`: its one client cannot resume streams itself. Raises `InterceptError`."""
    credentials = None if grant is None else ClientCredentials(grant, log)
    client = HttpClient(url, fields=parse_fields(fields), credentials=credentials)
    return OldUrl(client, limit, log) if sse else Url(client, limit, log, alone=alone)


class Served(msgspec.Struct, frozen=True):
    """A mount at a path, what tells its callers apart, and the bounds of its sessions if they are its own."""

    path: str
    mount: Mount
    door: Authenticator | None
    settings: Settings | None = None


class Observers:
    """Metrics, and telemetry where it is asked for."""

    def __init__(self, telemetry: Telemetry | None) -> None:
        self.metrics = Metrics(__version__)
        self._telemetry = telemetry

    def watch(self, server: str, policy: Policy, url: str, prefix: str, counters: State) -> Observer:
        """The observer for one server, whose limits are counted at `url` under `prefix`."""
        seen = self.metrics.watch(server, policy)
        seen.read_limits(server, Store(url, prefix, counters))
        if self._telemetry is None:
            return seen
        return observing.Observers(seen, self._telemetry.watch(server, policy, "tcp"))

    async def close(self) -> None:
        """Send what there is."""
        self.metrics.close()
        if self._telemetry is not None:
            await asyncio.to_thread(self._telemetry.close)


def run(main: Coroutine[Any, Any, int]) -> int:
    """Run to the end on the fastest event loop that is installed."""
    collect_rarely()
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        return runner.run(main)


async def serve(
    served: Sequence[Served], listener: socket.socket, settings: Settings, observers: Observers, log: Log
) -> None:
    """Serve until SIGTERM or SIGINT, then let what is under way come to its end."""
    documents = {"/metrics": Document(MEDIA_TYPE, observers.metrics.render)}
    for one in served:
        if one.door is not None and one.door.metadata is not None:
            document = one.door.metadata
            documents[one.door.metadata_path] = Document(_METADATA, partial(bytes, document), open=True)
    apart = {one.path: one.settings for one in served if one.settings is not None}
    app = App({one.path: one.mount for one in served}, settings, documents, log, apart)
    stop = asyncio.Event()
    keepers = [asyncio.ensure_future(one.mount.run()) for one in served]

    def reload() -> None:
        for one in served:
            one.mount.reload(force=True)

    with signals(stop=lambda _: stop.set(), reload=reload, log=log):
        async with serving(app, listener, log):
            for one in served:
                log("info", f"listening on {url_of(listener, one.path)}")
            await stop.wait()
    for keeper in keepers:
        keeper.cancel()
    await asyncio.gather(*(one.mount.close("the proxy was told to stop") for one in served))
    await observers.close()


@contextmanager
def signals(*, stop: Callable[[int], object], reload: Callable[[], None], log: Log) -> Iterator[None]:
    """Have SIGTERM and SIGINT stop the proxy (`stop` is told which of them), and SIGHUP read policies anew."""
    loop = asyncio.get_running_loop()

    def stopping(signum: int) -> None:
        log("info", f"stopping on {signal.Signals(signum).name}")
        stop(signum)

    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, stopping, signum)
    loop.add_signal_handler(signal.SIGHUP, reload)
    try:
        yield
    finally:
        for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            loop.remove_signal_handler(signum)


def url_of(listener: socket.socket, path: str) -> str:
    """The URL of a path at a socket that listens."""
    host, port = listener.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}{path}"
