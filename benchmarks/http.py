"""What the proxy costs over streamable HTTP, against no proxy, in one run: HTTP to HTTP, MCP 2026-07-28.

    python -m benchmarks.http [--calls N] [--rounds N] [--json]

The server is `benchmarks.http_echo`, the client raw sockets in this process. Latency: one call at a time over one
connection; the variants take turns. Throughput: 32 connections with one call each under way. CPU: processor time of the
proxy for a call, while 32 are under way. All of it is measured on the machine as it is, and with its processors kept
awake (see `benchmarks.stdio`). Everything is on, as in `benchmarks.stdio`, and metrics besides.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import select
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from benchmarks.stdio import ENVIRONMENT, NO_RULE, PROXY, ROOT, RULES, Figures, awake

CONNECTIONS = 32
META = {"io.modelcontextprotocol/protocolVersion": "2026-07-28", "io.modelcontextprotocol/clientCapabilities": {}}
FIELDS = (
    "POST /mcp HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nContent-Type: application/json\r\n"
    "Accept: application/json, text/event-stream\r\nMCP-Protocol-Version: 2026-07-28\r\nMcp-Method: tools/call\r\n"
    "Mcp-Name: echo\r\nContent-Length: %d\r\n\r\n"
)


def call(port: int, number: int) -> bytes:
    """One request: the call passes all rules."""
    params = {"name": "echo", "arguments": {"text": "hello world 42"}, "_meta": META}
    message = {"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": params}
    body = json.dumps(message, separators=(",", ":")).encode()
    return (FIELDS % (port, len(body))).encode() + body


class Variant:
    """A server's process, and what stands before it."""

    def __init__(self, command: Sequence[str]) -> None:
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=ENVIRONMENT, cwd=ROOT
        )
        assert self.process.stdout is not None
        while True:
            line = self.process.stdout.readline().decode()
            if not line:
                raise SystemExit("benchmark: a variant ended early")
            if found := re.search(r"(?:^|listening on http://127\.0\.0\.1:)(\d+)(?:/mcp)?$", line.strip()):
                self.port = int(found[1])
                break
        self._first = self._connect()

    def _connect(self) -> socket.socket:
        made = socket.create_connection(("127.0.0.1", self.port))
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return made

    def latency(self, calls: int) -> list[float]:
        """Seconds for each of so many calls, one at a time."""
        times = []
        for number in range(calls):
            request = call(self.port, number)
            before = time.perf_counter()
            self._first.sendall(request)
            answer = receive(self._first)
            times.append(time.perf_counter() - before)
            assert b"hello world 42" in answer, answer
            assert b"isError" not in answer, answer
        return times

    def throughput(self, calls: int) -> tuple[float, float]:
        """Calls a second with `CONNECTIONS` under way, and processor time of the process for one (seconds)."""
        made = [self._connect() for _ in range(CONNECTIONS)]
        sockets = {one.fileno(): one for one in made}
        poll = select.epoll()
        request = call(self.port, 7)
        for fd in sockets:
            poll.register(fd, select.EPOLLIN)
        spent, before = self._cpu(), time.perf_counter()
        for one in made:
            one.sendall(request)
        sent, got = CONNECTIONS, 0
        while got < calls:
            for fd, _ in poll.poll():
                receive(sockets[fd])
                got += 1
                if sent < calls:
                    sockets[fd].sendall(request)
                    sent += 1
        taken = time.perf_counter() - before
        for one in made:
            one.close()
        poll.close()
        return calls / taken, (self._cpu() - spent) / calls

    def _cpu(self) -> float:
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def resident(self) -> float:
        """The resident set in MiB (Linux)."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0]) / 1024

    def stop(self) -> None:
        """End it."""
        self._first.close()
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.terminate()
        self.process.wait(20)


def receive(connection: socket.socket) -> bytes:
    """One response with a Content-Length."""
    data = _more(connection)
    while b"\r\n\r\n" not in data:
        data += _more(connection)
    head, _, body = data.partition(b"\r\n\r\n")
    size = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
    while len(body) < size:
        body += _more(connection)
    return body


def _more(connection: socket.socket) -> bytes:
    data = connection.recv(65536)
    if not data:
        raise SystemExit("benchmark: a variant hung up")
    return data


@contextmanager
def variants() -> Iterator[dict[str, Variant]]:
    """No proxy, and proxies before it."""
    echo = Variant([sys.executable, "-m", "benchmarks.http_echo"])
    made = {"no proxy": echo}
    with tempfile.TemporaryDirectory() as folder:
        for name, rules in (("no rule", NO_RULE), ("3 conditions + 2 limits", RULES)):
            policy, audit = Path(folder, f"{len(made)}.yaml"), Path(folder, f"{len(made)}.jsonl")
            policy.write_text(rules)
            options = ["-c", str(policy), "--audit", str(audit), "--state", "memory://", "--listen", "127.0.0.1:0"]
            upstream = f"http://127.0.0.1:{echo.port}/mcp"
            made[name] = Variant([*PROXY, "run", *options, "--upstream", upstream])
        try:
            yield made
        finally:
            for variant in reversed(made.values()):
                variant.stop()


def measure(made: dict[str, Variant], calls: int, rounds: int) -> Figures:
    """All variants, which take turns: microseconds, calls a second, MiB."""
    times: dict[str, list[float]] = {name: [] for name in made}
    rates: dict[str, list[tuple[float, float]]] = {name: [] for name in made}
    for _ in range(rounds):
        for name, variant in made.items():
            variant.latency(200)  # warm these processes up again
            times[name] += variant.latency(calls)
        for name, variant in made.items():
            rates[name].append(variant.throughput(4 * calls))
    base = statistics.median(times["no proxy"])
    best = statistics.median([rate for rate, _ in rates["no proxy"]])
    found: Figures = {}
    for name, variant in made.items():
        p50 = statistics.median(times[name])
        rate = statistics.median([rate for rate, _ in rates[name]])
        found[name] = {
            "p50 µs": p50 * 1e6,
            "added": (p50 - base) * 1e6,
            "p99 µs": statistics.quantiles(times[name], n=100)[98] * 1e6,
            "×none": p50 / base,
            "calls/s": rate,
            "× none": rate / best,
            "CPU µs": statistics.median([cpu for _, cpu in rates[name]]) * 1e6,
            "RSS MiB": variant.resident(),
        }
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="What the proxy costs over HTTP.")
    parser.add_argument("--calls", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with variants() as made:
        found = {"the machine as it is": measure(made, options.calls, options.rounds)}
        with awake():
            found["its processors kept awake"] = measure(made, options.calls, options.rounds)
    if options.json:
        print(json.dumps(found))
        return
    for title, figures in found.items():
        names = list(next(iter(figures.values())))
        print(f"{title:26}" + "".join(f"{name:>10}" for name in names))
        for variant, row in figures.items():
            print(f"{variant:26}" + "".join(f"{row[name]:>10.{2 if '×' in name else 0}f}" for name in names))


if __name__ == "__main__":
    main()
