"""What HTTP servers cost in front of nothing, side by side in one run: the reason for connections of our own.

    python -m benchmarks.http_servers [--calls N] [--rounds N] [--json]

One client POSTs a small `tools/call` over connections that are kept. Latency: one call at a time; `CPU` is the
processor time of the server for a call, one at a time and with 32 in flight. Servers take turns, each round in a
process of its own, on uvloop where it is installed. `floor` parses a request and answers with the same bytes; `uvicorn`
runs an application that does just that; `ours`, alone and on uvicorn, does everything that the proxy does around a
conversation, which answers at once.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import selectors
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httptools
import uvicorn

from benchmarks.stdio import ENVIRONMENT, ROOT
from intercept_py.log import Log
from intercept_py.model import Caller
from intercept_py.transports.http_gateway import Settings
from intercept_py.transports.http_server import App, create_app
from intercept_py.transports.http_service import bind, new_event_loop, serving
from intercept_py.wire.commands import ToClient
from intercept_py.wire.http_params import Mirror

IN_FLIGHT = 32
WARM = 300
BODY = json.dumps(
    {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "tools/call",
        "params": {
            "name": "echo",
            "arguments": {"text": "hello world"},
            "_meta": {
                "io.modelcontextprotocol/protocolVersion": "2026-07-28",
                "io.modelcontextprotocol/clientCapabilities": {},
            },
        },
    }
).encode()
CALL = (
    b"POST /mcp HTTP/1.1\r\nhost: localhost\r\naccept: application/json, text/event-stream\r\n"
    b"content-type: application/json\r\nmcp-protocol-version: 2026-07-28\r\nmcp-method: tools/call\r\n"
    b"mcp-name: echo\r\nuser-agent: bench\r\ncontent-length: %d\r\n\r\n%b" % (len(BODY), BODY)
)
RESULT = b'{"jsonrpc":"2.0","id":1,"result":{"content":[{"type":"text","text":"hello world"}],"resultType":"complete"}}'
FIELDS = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(RESULT))]


# ---- servers


class Floor(asyncio.Protocol):
    """The least that a server in Python can do."""

    def connection_made(self, transport: Any) -> None:
        """Begin."""
        self._transport = transport
        self._parser = httptools.HttpRequestParser(self)

    def data_received(self, data: bytes) -> None:
        """Parse."""
        self._parser.feed_data(data)

    def on_message_complete(self) -> None:
        """Answer."""
        self._transport.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(RESULT), RESULT))


async def bare(scope: Any, receive: Any, send: Any) -> None:
    """The least that an ASGI application can do."""
    if scope["type"] == "http":
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": FIELDS})
        await send({"type": "http.response.body", "body": RESULT})


class Nothing:
    """A conversation that answers at once, and its gateway."""

    needs_session = False
    _caller = Caller(address="127.0.0.1")

    def __init__(self, front: Any = None) -> None:
        self._front = front

    def recognise(self, authorization: str | None, address: str) -> Caller:
        """See `Gateway`."""
        return self._caller

    async def authenticate(self, authorization: str | None, address: str) -> Caller:
        """See `Gateway`."""
        return self._caller

    def converse(self, front: Any, caller: Caller, *, session: bool, version: str | None) -> Any:
        """See `Gateway`."""
        return Nothing(front)

    def from_client(self, line: bytes) -> None:
        """See `Conversation`."""
        self._front.deliver([ToClient(RESULT, 1, True)], None)

    def over(self, conversation: Any) -> None:
        """Nothing was begun."""

    def mirrors_of(self, name: str, caller: Caller) -> tuple[Mirror, ...]:
        """See `Gateway`."""
        return ()

    def why_not_ready(self) -> str | None:
        """See `Gateway`."""
        return None


async def floor(listener: socket.socket) -> None:
    """Serve with `Floor`."""
    server = await asyncio.get_running_loop().create_server(Floor, sock=listener)
    await server.serve_forever()


async def ours(listener: socket.socket) -> None:
    """Serve with the proxy's own server."""
    async with serving(App({"/mcp": Nothing()}, Settings(), {}, Log()), listener, Log()):
        await asyncio.Event().wait()


def on_uvicorn(application: Any, http: Any) -> Callable[[socket.socket], Any]:
    """Serve an application with uvicorn and one of its parsers."""
    config = uvicorn.Config(application, http=http, ws="none", log_config=None, access_log=False, lifespan="off")
    return lambda listener: uvicorn.Server(config)._serve([listener])


SERVERS: dict[str, Callable[[socket.socket], Any]] = {
    "floor": floor,
    "ours": ours,
    "uvicorn, httptools": on_uvicorn(bare, "httptools"),
    "uvicorn, h11": on_uvicorn(bare, "h11"),
    "ours on uvicorn, httptools": on_uvicorn(create_app({"/mcp": Nothing()}), "httptools"),
}


def serve(name: str) -> None:
    """Be a server; SIGUSR1 has it tell its processor time."""
    listener = bind("127.0.0.1", 0, authenticated=False)
    signal.signal(signal.SIGUSR1, lambda *_: print(time.process_time(), flush=True))
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    print(listener.getsockname()[1], flush=True)
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(SERVERS[name](listener))


# ---- the client


@contextmanager
def started(name: str) -> Iterator[tuple[int, Callable[[], float]]]:
    """The port of a server, and what tells its processor time."""
    command = [sys.executable, "-m", "benchmarks.http_servers", "--serve", name]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=ENVIRONMENT, cwd=ROOT, text=True) as process:
        assert process.stdout is not None
        out = process.stdout

        def cpu() -> float:
            process.send_signal(signal.SIGUSR1)
            return float(out.readline())

        try:
            yield int(out.readline()), cpu
        finally:
            process.terminate()


def connect(port: int) -> socket.socket:
    """A connection that sends at once."""
    connection = socket.create_connection(("127.0.0.1", port))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def one(connection: socket.socket) -> None:
    """One call and its answer."""
    connection.sendall(CALL)
    heard = b""
    while not heard.endswith(RESULT):
        data = connection.recv(65536)
        if not data:
            raise SystemExit(f"benchmark: a server hung up after {heard!r}")
        heard += data


def many(port: int, calls: int) -> None:
    """So many calls, 32 of them at any time."""
    with selectors.DefaultSelector() as selector:
        for _ in range(IN_FLIGHT):
            connection = connect(port)
            selector.register(connection, selectors.EVENT_READ)
            connection.sendall(CALL)
        begun, done = IN_FLIGHT, 0
        while done < calls:
            for key, _ in selector.select():
                connection = key.fileobj  # type: ignore[assignment]
                if not connection.recv(65536).endswith(RESULT):
                    continue
                done += 1
                if begun < calls:
                    begun += 1
                    connection.sendall(CALL)
        for key in list(selector.get_map().values()):
            key.fileobj.close()  # type: ignore[union-attr]


def measure(name: str, calls: int) -> tuple[float, float, float, float]:
    """p50 and CPU of calls one at a time, calls a second and CPU of many; times in microseconds."""
    with started(name) as (port, cpu):
        connection = connect(port)
        for _ in range(WARM):
            one(connection)
        times, before = [], cpu()
        for _ in range(calls):
            since = time.perf_counter()
            one(connection)
            times.append(time.perf_counter() - since)
        between, since = cpu(), time.perf_counter()
        many(port, calls * 2)
        seconds = time.perf_counter() - since
        after = cpu()
        connection.close()
    return (
        statistics.median(times) * 1e6,
        (between - before) / calls * 1e6,
        calls * 2 / seconds,
        (after - between) / calls / 2 * 1e6,
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--calls", type=int, default=3000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true", help="the medians as one line of JSON")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.serve is not None:
        serve(chosen.serve)
        return
    found: dict[str, list[tuple[float, ...]]] = {name: [] for name in SERVERS}
    for _ in range(chosen.rounds):
        for name in SERVERS:
            found[name].append(measure(name, chosen.calls))
    medians = {
        name: [statistics.median(column) for column in zip(*rounds, strict=True)] for name, rounds in found.items()
    }
    if chosen.json:
        print(json.dumps(medians))
        return
    print("| | p50 µs | CPU µs | calls/s, 32 in flight | CPU µs |\n|---|---|---|---|---|")
    for name, (p50, cpu, rate, cpu_many) in medians.items():
        print(f"| {name} | {p50:.0f} | {cpu:.0f} | {rate:,.0f} | {cpu_many:.0f} |")


if __name__ == "__main__":
    main()
