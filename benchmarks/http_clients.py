"""What HTTP clients cost in front of one lean server, side by side in one run: the reason for a client of our own.

    python -m benchmarks.http_clients [--calls N] [--rounds N] [--json]

Each client POSTs a small `tools/call` and reads its answer over connections that are kept. Latency: one call at a time;
throughput: 32 in flight; `CPU` is the processor time of the client for a call. Clients take turns, each round in a
process of its own, on asyncio's loop and on uvloop. The server answers every request with the same bytes and costs
almost nothing. What is not installed is left out (`pip install aiohttp uvloop`).
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import importlib.util
import json
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeAlias

from benchmarks.stdio import ENVIRONMENT, ROOT
from intercept_py.transports.client_connection import Request
from intercept_py.transports.http_client import HttpClient

IN_FLIGHT = 32
WARM = 300
CALL = json.dumps(
    {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "tools/call",
        "params": {
            "name": "echo",
            "arguments": {"text": "hello world"},
            "_meta": {"io.modelcontextprotocol/protocolVersion": "2026-07-28"},
        },
    }
).encode()
RESULT = b'{"jsonrpc":"2.0","id":1,"result":{"content":[{"type":"text","text":"hello world"}],"resultType":"complete"}}'
ANSWER = b"HTTP/1.1 200 OK\r\ndate: Sat, 21 Nov 2026 12:00:00 GMT\r\nserver: bench\r\ncontent-length: %d\r\n" % len(
    RESULT
)
ANSWER += b"content-type: application/json\r\n\r\n" + RESULT
FIELDS = {
    "Content-Type": "application/json",
    "Accept": "application/json, text/event-stream",
    "MCP-Protocol-Version": "2026-07-28",
    "Mcp-Method": "tools/call",
    "Mcp-Name": "echo",
}

Post: TypeAlias = Callable[[], Awaitable[bytes]]


class Server(asyncio.Protocol):
    """Answers whenever what has come ends as a call does."""

    def __init__(self) -> None:
        self._read = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        self._read += data
        if self._read.endswith(CALL):
            self._read = b""
            self._transport.write(ANSWER)


async def serve() -> None:
    """Print the port and serve until stdin ends."""
    server = await asyncio.get_running_loop().create_server(Server, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.to_thread(sys.stdin.read)


@asynccontextmanager
async def ours(url: str) -> AsyncIterator[Post]:
    """`transports.http_client`."""

    class Call(Request):
        def __init__(self) -> None:
            self.future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
            self.parts: list[bytes] = []

        def head(self, status: int, fields: dict[bytes, bytes]) -> None:
            assert status == 200

        def data(self, chunk: bytes) -> None:
            self.parts.append(chunk)

        def end(self) -> None:
            self.future.set_result(b"".join(self.parts))

        def broken(self, why: str) -> None:
            self.future.set_exception(ConnectionError(why))

    client = HttpClient(url)
    fields = "".join(f"{name}: {value}\r\n" for name, value in FIELDS.items()).encode()

    def post() -> Awaitable[bytes]:
        call = Call()
        client.send("POST", fields, CALL, call)
        return call.future

    yield post
    await client.close()


@asynccontextmanager
async def httpx2(url: str) -> AsyncIterator[Post]:
    """The client of the MCP SDK."""
    library = importlib.import_module("httpx2")
    async with library.AsyncClient(limits=library.Limits(max_connections=None)) as client:

        async def post() -> bytes:
            response = await client.post(url, content=CALL, headers=FIELDS)
            content: bytes = response.content
            return content

        yield post


@asynccontextmanager
async def aiohttp(url: str) -> AsyncIterator[Post]:
    """The fastest of the full clients."""
    library = importlib.import_module("aiohttp")
    async with library.ClientSession(cookie_jar=library.DummyCookieJar()) as client:

        async def post() -> bytes:
            async with client.post(url, data=CALL, headers=FIELDS, allow_redirects=False) as response:
                content: bytes = await response.read()
                return content

        yield post


CLIENTS = {"ours": ours, "aiohttp": aiohttp, "httpx2": httpx2}
Figures: TypeAlias = dict[str, float]


async def measure(name: str, url: str, calls: int) -> Figures:
    """One round of one client. Times in µs."""
    async with CLIENTS[name](url) as post:
        for _ in range(WARM):
            assert await post() == RESULT
        took = []
        cpu = time.process_time()
        for _ in range(calls):
            began = time.perf_counter()
            await post()
            took.append(time.perf_counter() - began)
        cpu = time.process_time() - cpu

        async def several() -> None:
            for _ in range(calls // 8):
                await post()

        await asyncio.gather(*(several() for _ in range(IN_FLIGHT)))
        began, busy = time.perf_counter(), time.process_time()
        await asyncio.gather(*(several() for _ in range(IN_FLIGHT)))
        done = calls // 8 * IN_FLIGHT
        return {
            "p50_us": statistics.median(took) * 1e6,
            "cpu_us": cpu / calls * 1e6,
            "calls_per_s": done / (time.perf_counter() - began),
            "cpu_in_flight_us": (time.process_time() - busy) / done * 1e6,
        }


def on_loop(loop: str, work: Callable[[], Awaitable[Figures]]) -> Figures:
    """Run on asyncio's event loop or on uvloop."""
    factory = importlib.import_module("uvloop").new_event_loop if loop == "uvloop" else None
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(_await(work))


async def _await(work: Callable[[], Awaitable[Figures]]) -> Figures:
    return await work()


def compare(calls: int, rounds: int) -> dict[str, Figures]:
    """Medians over all rounds, by client and loop."""
    loops = ["asyncio"] + (["uvloop"] if importlib.util.find_spec("uvloop") else [])
    names = [name for name in CLIENTS if name == "ours" or importlib.util.find_spec(name)]
    found: dict[str, list[Figures]] = {f"{name} on {loop}": [] for name in names for loop in loops}
    command = [sys.executable, "-m", "benchmarks.http_clients"]
    with subprocess.Popen(
        [*command, "--serve"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=ENVIRONMENT
    ) as server:
        assert server.stdout is not None
        url = f"http://127.0.0.1:{int(server.stdout.readline())}/mcp"
        for _ in range(rounds):
            for variant in found:
                name, _, loop = variant.split(" ")
                arguments = ["--client", name, "--loop", loop, "--url", url, "--calls", str(calls)]
                told = subprocess.check_output([*command, *arguments], cwd=ROOT, env=ENVIRONMENT)
                found[variant].append(json.loads(told))
        server.communicate()
    return {
        variant: {what: statistics.median(figures[what] for figures in told) for what in told[0]}
        for variant, told in found.items()
    }


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=3000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--client", choices=CLIENTS, help=argparse.SUPPRESS)
    parser.add_argument("--loop", default="asyncio", help=argparse.SUPPRESS)
    parser.add_argument("--url", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        asyncio.run(serve())
    elif options.client:
        print(json.dumps(on_loop(options.loop, lambda: measure(options.client, options.url, options.calls))))
    else:
        figures = compare(options.calls, options.rounds)
        print(json.dumps(figures, indent=2) if options.json else table(figures))


def table(figures: dict[str, Figures]) -> str:
    """The rows of `benchmarks/README.md`."""
    lines = ["| | p50 µs | CPU µs | calls/s | CPU µs |", "|---|---|---|---|---|"]
    for variant, of in figures.items():
        cells = [f"{of[what]:,.0f}" for what in ("p50_us", "cpu_us", "calls_per_s", "cpu_in_flight_us")]
        lines.append(f"| {variant} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
