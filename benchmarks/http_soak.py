"""Many clients of many kinds at once before the proxy, and what is left of them in it once they have gone.

    python -m benchmarks.http_soak [--seconds N] [--rounds N] [--idle-sessions N]

200 clients, half of them on MCP 2026-07-28: plain and denied calls, calls with progress on an event stream, sessions
with a GET stream, clients that drop their call. Each round lasts as long as the others; after the first two, in which
windows fill and pools grow, memory must stay where it is. Then idle sessions, each of which listens. In front of a
server over HTTP (`benchmarks.http_soak_server`) and of a command (`tests/support/echo_server.py`). Linux.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from benchmarks.stdio import ECHO, ENVIRONMENT, PROXY, ROOT

Message = dict[str, Any]

POLICY = """
tools:
  delete_project: {rules: [{name: never, action: deny}]}
  echo: {rules: [{rate_limit: {max: 100000000, window: 60, per: principal}}]}
"""
SESSION = "2025-11-25"
VERSION_KEY = "io.modelcontextprotocol/protocolVersion"
META = {VERSION_KEY: "2026-07-28", "io.modelcontextprotocol/clientCapabilities": {}}
HELLO = {"protocolVersion": SESSION, "capabilities": {}, "clientInfo": {"name": "soak", "version": "1"}}
HEAD = (
    "{} /mcp HTTP/1.1\r\nHost: 127.0.0.1:{}\r\nContent-Type: application/json\r\n"
    "Accept: application/json, text/event-stream\r\nContent-Length: {}\r\n{}\r\n"
)
GROWTH = 8.0
"""MiB by which memory may differ after the warm-up."""
Sampled = tuple[float, int, int]
"""Of the proxy: MiB of memory, file descriptors, children."""


class WrongError(Exception):
    """The answer is not what it has to be."""


class Connection:
    """One connection of a client. `session`: its id, once it has one."""

    def __init__(self, port: int) -> None:
        self.session = ""
        self._port = port

    async def __aenter__(self) -> Connection:
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port, limit=1 << 24)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._writer.transport.abort()

    async def send(self, verb: str, message: Message | None = None) -> tuple[int, dict[str, str]]:
        """One request; the status and the fields of the answer."""
        body = b"" if message is None else json.dumps(message).encode()
        more = "".join(f"{name}: {value}\r\n" for name, value in self._fields(message).items())
        self._writer.write(HEAD.format(verb, self._port, len(body), more).encode() + body)
        head = (await self._reader.readuntil(b"\r\n\r\n")).decode()
        first, *lines = head.removesuffix("\r\n\r\n").split("\r\n")
        self._answered = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
        return int(first.split()[1]), self._answered

    def _fields(self, message: Message | None) -> dict[str, str]:
        if message is not None and VERSION_KEY in message.get("params", {}).get("_meta", {}):
            named = {"Mcp-Name": message["params"]["name"]} if "name" in message["params"] else {}
            return {"MCP-Protocol-Version": "2026-07-28", "Mcp-Method": message["method"], **named}
        return {"MCP-Protocol-Version": SESSION, "Mcp-Session-Id": self.session} if self.session else {}

    async def body(self) -> bytes:
        """The rest of an answer that is no stream."""
        return await self._reader.readexactly(int(self._answered["content-length"]))

    async def events(self) -> AsyncGenerator[Message, None]:
        """The messages of a stream, to its end."""
        text = b""
        while size := int(await self._reader.readline(), 16):
            text += (await self._reader.readexactly(size + 2))[:-2]
            *events, text = text.split(b"\n\n")
            for event in events:
                data = [line[5:] for line in event.split(b"\n") if line.startswith(b"data:")]
                if data and data[0].strip():
                    yield json.loads(b"\n".join(data))
        await self._reader.readline()

    async def ask(self, message: Message) -> list[Message]:
        """All that is said because of a request, the answer last."""
        status, fields = await self.send("POST", message)
        if status != 200:
            raise WrongError(f"status {status}: {(await self.body()).partition(b'error')[2][:100]!r}")
        if fields["content-type"].startswith("text/event-stream"):
            return [event async for event in self.events()]
        return [json.loads(await self.body())]

    async def call(self, tool: str, *, modern: bool, progress: bool = False, **arguments: Any) -> list[Message]:
        """A call; what is said because of it."""
        meta = (META if modern else {}) | ({"progressToken": "p"} if progress else {})
        params = {"name": tool, "arguments": arguments} | ({"_meta": meta} if meta else {})
        return await self.ask(request("tools/call", **params))

    async def begin(self) -> None:
        """Open a session."""
        status, fields = await self.send("POST", request("initialize", **HELLO))
        answer = await self.body()
        if status != 200:
            raise WrongError(f"status {status} to initialize: {answer[:100]!r}")
        self.session = fields["mcp-session-id"]
        status, _ = await self.send("POST", {"jsonrpc": "2.0", "method": "notifications/initialized"})
        if status != 202:
            raise WrongError(f"status {status} to notifications/initialized")


def request(method: str, **params: Any) -> Message:
    """A request with an id of its own."""
    return {"jsonrpc": "2.0", "id": random.getrandbits(40), "method": method, "params": params}


# ---- clients, each of which does one thing again and again


async def plain(port: int, tally: Counter[str]) -> None:
    """Calls over one connection, one of them denied."""
    async with Connection(port) as one:
        for number in range(50):
            await _echo(one, tally, modern=True)
            if number == 25:
                await _denied(one, tally, modern=True)


async def progressing(port: int, tally: Counter[str]) -> None:
    """Calls that are answered with a stream."""
    async with Connection(port) as one:
        for _ in range(20):
            await _progress(one, tally, modern=True)


async def session(port: int, tally: Counter[str]) -> None:
    """A session with a GET stream, ended in good order."""
    async with Connection(port) as one:
        await one.begin()
        async with Connection(port) as ear:
            await _listen(one, ear, tally)


async def _listen(one: Connection, ear: Connection, tally: Counter[str]) -> None:
    ear.session = one.session
    status, _ = await ear.send("GET")
    if status != 200:
        raise WrongError(f"status {status} to GET")
    async with aclosing(ear.events()) as events:
        await _echo(one, tally, modern=False)
        await one.call("change_tools", modern=False)
        if (await anext(events)).get("method") != "notifications/tools/list_changed":
            raise WrongError("something else on the GET stream")
        for _ in range(10):
            await _echo(one, tally, modern=False)
        await _progress(one, tally, modern=False)
        await _denied(one, tally, modern=False)
        status, _ = await one.send("DELETE")
        if status != 200:
            raise WrongError(f"status {status} to DELETE")
        async for _ in events:
            raise WrongError("more on the GET stream")
    tally["sessions"] += 1


async def dropping(port: int, tally: Counter[str]) -> None:
    """A client that goes away from a call which the server is never going to answer."""
    async with Connection(port) as one:
        with suppress(TimeoutError):
            await asyncio.wait_for(one.call("hold", modern=True), random.uniform(0.0, 0.1))
            raise WrongError("an answer to a call that has none")
    tally["dropped"] += 1


async def vanishing(port: int, tally: Counter[str]) -> None:
    """The same in a session, which is left behind."""
    async with Connection(port) as one:
        await one.begin()
        with suppress(TimeoutError):
            await asyncio.wait_for(one.call("hold", modern=False), 0.5)
            raise WrongError("an answer to a call that has none")
    tally["vanished"] += 1


async def _echo(one: Connection, tally: Counter[str], *, modern: bool) -> None:
    text = f"hello {random.getrandbits(30)}"
    (answer,) = await one.call("echo", modern=modern, text=text)
    if answer.get("result", {}).get("content") != [{"type": "text", "text": text}]:
        raise WrongError(f"not an echo: {str(answer)[:200]}")
    tally["calls"] += 1


async def _progress(one: Connection, tally: Counter[str], *, modern: bool) -> None:
    *steps, answer = await one.call("progress", modern=modern, progress=True, steps=5)
    told = [step["params"] for step in steps]
    if told != [{"progressToken": "p", "progress": number} for number in range(1, 6)] or "result" not in answer:
        raise WrongError(f"not the progress of this call: {told} {str(answer)[:200]}")
    tally["streams"] += 1


async def _denied(one: Connection, tally: Counter[str], *, modern: bool) -> None:
    (answer,) = await one.call("delete_project", modern=modern, projectId="x")
    if not answer.get("result", {}).get("isError"):
        raise WrongError(f"not a denial: {str(answer)[:200]}")
    tally["denied"] += 1


Client = Callable[[int, Counter[str]], Awaitable[None]]
CLIENTS: dict[str, dict[Client, int]] = {
    "http": {plain: 100, progressing: 30, session: 40, dropping: 20, vanishing: 10},
    "command": {plain: 130, progressing: 30, session: 15, dropping: 20, vanishing: 5},  # a process for each session
}


async def load(port: int, kind: str, seconds: float) -> Counter[str]:
    """200 clients for so long. What went wrong is counted by what it was, after `! `."""
    tally: Counter[str] = Counter()
    until = time.monotonic() + seconds

    async def again(client: Client) -> None:
        while time.monotonic() < until:
            try:
                async with asyncio.timeout(30):
                    await client(port, tally)
            except Exception as exc:
                tally[f"! {getattr(client, '__name__', '')}: {type(exc).__name__} {exc}"] += 1
                await asyncio.sleep(0.1)

    await asyncio.gather(*(again(client) for client, many in CLIENTS[kind].items() for _ in range(many)))
    return tally


@asynccontextmanager
async def idle_sessions(port: int, many: int) -> AsyncIterator[None]:
    """So many sessions, each of which listens and says nothing."""
    ears: list[Connection] = []
    try:
        for _ in range(many):
            async with Connection(port) as one:
                await one.begin()
            ear = Connection(port)
            ear.session = one.session
            ears.append(await ear.__aenter__())
            if (await ear.send("GET"))[0] != 200:
                raise WrongError("the GET stream was refused")
        yield
    finally:
        for ear in ears:
            await ear.__aexit__()


# ---- the proxy


class Proxy:
    """A running proxy, seen from outside. `said` is its log."""

    def __init__(
        self, process: subprocess.Popen[bytes], port: int, said: Path, server: subprocess.Popen[bytes] | None
    ) -> None:
        self.process = process
        self.port = port
        self.said = said
        self._server = server

    def complaints(self) -> list[str]:
        """What it says besides what it says when all is well."""
        return [line for line in self.said.read_text().splitlines() if " warn" in line or " error" in line]

    def _hang_up(self) -> None:
        if self._server is not None:
            assert self._server.stdin is not None
            self._server.stdin.write(b"\n")
            self._server.stdin.flush()

    def sample(self) -> Sampled:
        """What it takes now."""
        proc = Path("/proc", str(self.process.pid))
        resident = int((proc / "status").read_text().partition("VmRSS:")[2].split()[0]) / 1024
        children = (proc / "task" / str(self.process.pid) / "children").read_text().split()
        return resident, len(os.listdir(proc / "fd")), len(children)

    async def settled(self, descriptors: int, children: int, *, hang_up: bool = False, seconds: float = 60.0) -> bool:
        """Whether it is soon down to so many; `hang_up`: without waiting for connections that it keeps for a while."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            if hang_up:
                self._hang_up()
            _, open_now, alive = self.sample()
            if open_now <= descriptors and alive <= children:
                return True
            await asyncio.sleep(0.05)
        return False


@asynccontextmanager
async def proxy(folder: Path, kind: str) -> AsyncIterator[Proxy]:
    """The proxy in front of a server over HTTP or of a command."""
    (folder / "policy.yaml").write_text(POLICY)
    options = ["--audit", str(folder / f"{kind}.jsonl"), "--state", "memory://", "--listen", "127.0.0.1:0"]
    options += ["--max-sessions", "5000", "--session-idle", "8", "--timeout", "5"]
    server = None
    if kind == "http":
        server = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.http_soak_server"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=ENVIRONMENT,
            cwd=ROOT,
        )
        assert server.stdout is not None
        options += ["--upstream", f"http://127.0.0.1:{int(server.stdout.readline())}/mcp"]
    else:
        options += ["--", *ECHO]
    log = folder / f"{kind}.log"
    with log.open("wb") as said:
        command = [*PROXY, "run", "-c", str(folder / "policy.yaml"), *options]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=said, env=ENVIRONMENT, cwd=ROOT)
    try:
        yield Proxy(process, await _port(log), log, server)
    finally:
        process.terminate()
        await asyncio.to_thread(process.wait, 30)
        if server is not None:
            with server:  # closes its stdin, at whose end it ends
                pass


async def _port(log: Path) -> int:
    async with asyncio.timeout(30):
        while "listening on " not in log.read_text():
            await asyncio.sleep(0.02)
    return int(log.read_text().partition("listening on http://127.0.0.1:")[2].partition("/")[0])


async def warm(one: Proxy) -> Sampled:
    """One call, after which all that stays open is open."""
    await plain(one.port, Counter())
    await asyncio.sleep(0.5)
    return one.sample()


async def soak(kind: str, rounds: int, seconds: float) -> bool:
    """All rounds against one kind of server, printed. Whether nothing was wrong."""
    good, kept = True, []
    with tempfile.TemporaryDirectory() as folder:
        async with proxy(Path(folder), kind) as one:
            _, descriptors, children = await warm(one)
            print(f"{kind}: before: %.1f MiB, %d descriptors, %d children" % one.sample())
            for number in range(rounds):
                tally = await load(one.port, kind, seconds)
                good &= await one.settled(descriptors, children)
                counted = ", ".join(f"{many:,} {name}" for name, many in sorted(tally.items()))
                print(f"{kind}: round {number}: %.1f MiB, %d descriptors, %d children; {counted}" % one.sample())
                good &= not any(name.startswith("!") for name in tally)
                kept.append(one.sample()[0])
            complaints = one.complaints()
            print(*complaints[:5], sep="\n", end="")
    return good and not complaints and kept[-1] - kept[min(1, rounds - 1)] < GROWTH


async def idle(many: int) -> None:
    """What sessions cost that only listen, printed."""
    with tempfile.TemporaryDirectory() as folder:
        async with proxy(Path(folder), "http") as one:
            before, *_ = await warm(one)
            async with idle_sessions(one.port, many):
                now, descriptors, _ = one.sample()
            print(f"{many} idle sessions that listen: {now - before:.1f} MiB more, {now:.1f} in all; {descriptors} fds")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run and print; 1 if anything was wrong."""
    parser = argparse.ArgumentParser(description="Whether the proxy stays as it is under load over HTTP.")
    parser.add_argument("--seconds", type=float, default=20.0, help="of a round")
    parser.add_argument("--rounds", type=int, default=4, help="the first two are the warm-up")
    parser.add_argument("--idle-sessions", type=int, default=1000)
    options = parser.parse_args(arguments)
    good = [asyncio.run(soak(kind, options.rounds, options.seconds)) for kind in CLIENTS]
    asyncio.run(idle(options.idle_sessions))
    return 0 if all(good) else 1


if __name__ == "__main__":
    sys.exit(main())
