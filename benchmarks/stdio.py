"""What the proxy costs over stdio, against no proxy and against `cat`, in one run.

    python -m benchmarks.stdio [--calls N] [--rounds N] [--json]

The upstream is `tests/support/echo_server.py`, the client two pipes and `os.read`. Latency: one call at a time; the
variants take turns, round by round, so that a busy machine slows all of them. Throughput: 64 calls in flight. Both are
measured twice: as the machine is, and with its processors kept awake, which leaves out what it costs to wake one that
sleeps: little on bare metal, on some virtual machines more than all else. Start: from spawn to the answer of
`initialize`, and to the answer of the first call. Memory: resident set after the load.
PYTHON* variables are stripped from the environment (they can switch byte code off) and everything is compiled before
it is measured.
"""

from __future__ import annotations

import argparse
import compileall
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias

ROOT = Path(__file__).resolve().parent.parent
ECHO = [sys.executable, "-S", "-E", str(ROOT / "tests" / "support" / "echo_server.py")]
# What users run: the console script, where it is installed beside this Python.
SCRIPT = Path(sys.executable).parent / "intercept-py"
PROXY = [str(SCRIPT)] if SCRIPT.exists() else [sys.executable, "-m", "intercept_py"]
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
IN_FLIGHT = 64

Commands: TypeAlias = dict[str, Sequence[str] | str]
"""Name of a variant to the command that starts it."""
Figures: TypeAlias = dict[str, dict[str, float]]
"""Name of a variant to its figures by theirs."""

INITIALIZE = {
    "jsonrpc": "2.0",
    "id": "init",
    "method": "initialize",
    "params": {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "bench", "version": "1"}},
}

IDLE_WORK = """
import os, sys
os.sched_setaffinity(0, {int(sys.argv[1])})
os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
parent = os.getppid()
print(flush=True)
while os.getppid() == parent:
    sum(range(10_000))
"""
"""Runs on one processor whenever nothing else does, as long as its parent lives."""

NO_RULE = "tools: {}\n"
RULES = """
tools:
  echo:
    rules:
      - conditions:
          - {path: args.text, op: regex, value: "^[a-z0-9 ]+$"}
          - {path: args.text, op: length_lte, value: 100}
          - {path: args.text, op: starts_with, value: "hello"}
        rate_limit: {max: 100000000, window: 60}
  "*":
    rules:
      - rate_limit: 100000000/hour
"""


class Peer:
    """A started variant and its pipes."""

    def __init__(self, command: Sequence[str] | str) -> None:
        self.spawned = time.perf_counter()
        self.process = subprocess.Popen(
            command,
            shell=isinstance(command, str),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=ENVIRONMENT,
            bufsize=0,
            cwd=ROOT,
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self._in = self.process.stdin.fileno()
        self._out = self.process.stdout.fileno()
        self._rest = b""

    def ask(self, message: bytes) -> bytes:
        """Send one request and wait for one line."""
        os.write(self._in, message)
        while b"\n" not in self._rest:
            data = os.read(self._out, 65536)
            if not data:
                raise SystemExit("benchmark: a variant ended early")
            self._rest += data
        line, _, self._rest = self._rest.partition(b"\n")
        return line

    def start(self) -> tuple[float, float]:
        """Seconds from spawn to the answer of `initialize` and to the answer of the first call."""
        answer = self.ask(json.dumps(INITIALIZE).encode() + b"\n")
        initialized = time.perf_counter() - self.spawned
        assert b'"result"' in answer, answer
        os.write(self._in, b'{"jsonrpc":"2.0","method":"notifications/initialized"}\n')
        answer = self.ask(call("first"))
        assert b"hello" in answer, answer
        assert b"isError" not in answer, answer
        return initialized, time.perf_counter() - self.spawned

    def latency(self, calls: int) -> list[float]:
        """Seconds for each of so many calls, one at a time."""
        times = []
        for number in range(calls):
            message = call(number)
            before = time.perf_counter()
            self.ask(message)
            times.append(time.perf_counter() - before)
        return times

    def throughput(self, calls: int) -> float:
        """Calls a second with `IN_FLIGHT` of them under way."""
        before = time.perf_counter()
        os.write(self._in, b"".join(call(number) for number in range(IN_FLIGHT)))
        sent, got = IN_FLIGHT, 0
        while got < calls:
            data = os.read(self._out, 65536)
            answers = data.count(b"\n")
            got += answers
            more = min(answers, calls - sent)
            if more > 0:
                os.write(self._in, b"".join(call(sent + number) for number in range(more)))
                sent += more
        return calls / (time.perf_counter() - before)

    def resident(self) -> float:
        """The resident set in MiB (Linux)."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0]) / 1024

    def stop(self) -> None:
        """End it as a client does."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(10)
        assert self.process.stdout is not None
        self.process.stdout.close()


def call(id: int | str) -> bytes:
    """The call that every variant answers: it passes all rules."""
    number = json.dumps(id).encode()
    return (
        b'{"jsonrpc":"2.0","id":' + number + b',"method":"tools/call",'
        b'"params":{"name":"echo","arguments":{"text":"hello world 42"}}}\n'
    )


@contextmanager
def awake() -> Iterator[None]:
    """Keep all processors from sleeping, with work that anything else goes before (SCHED_IDLE, Linux)."""
    made: list[subprocess.Popen[bytes]] = []
    try:
        for number in os.sched_getaffinity(0):
            command = [sys.executable, "-S", "-E", "-c", IDLE_WORK, str(number)]
            made.append(subprocess.Popen(command, stdout=subprocess.PIPE))
        for process in made:
            assert process.stdout is not None
            if not process.stdout.readline():
                raise SystemExit("benchmark: processors cannot be kept awake here: SCHED_IDLE is refused")
        yield
    finally:
        for process in made:
            process.kill()
            process.communicate()


def variants(folder: Path) -> Commands:
    """Name to command. `cat` is the least that any process in between can cost."""
    (folder / "none.yaml").write_text(NO_RULE)
    (folder / "rules.yaml").write_text(RULES)
    audit = str(folder / "audit.jsonl")

    def proxy(policy: str) -> list[str]:
        options = ["-c", str(folder / policy), "--state", "memory://", "--audit", audit, "--log-level", "error"]
        return [*PROXY, "run", *options, "--", *ECHO]

    echo = " ".join(f"'{word}'" for word in ECHO)
    return {
        "no proxy": ECHO,
        "cat": f"cat | {echo} | cat",
        "no rule": proxy("none.yaml"),
        "3 conditions + 2 limits": proxy("rules.yaml"),
    }


def load(peers: dict[str, Peer], calls: int, rounds: int) -> Figures:
    """Latency and throughput of all variants, which take turns."""
    times: dict[str, list[float]] = {name: [] for name in peers}
    rates: dict[str, list[float]] = {name: [] for name in peers}
    for _ in range(rounds):
        for name, peer in peers.items():
            peer.latency(200)  # warm this pair of processes up again
            times[name] += [seconds * 1e6 for seconds in peer.latency(calls)]
        for name, peer in peers.items():
            rates[name].append(peer.throughput(calls * 10))
    return {
        name: {
            "p50_us": statistics.median(times[name]),
            "p99_us": statistics.quantiles(times[name], n=100)[98],
            "calls_per_s": statistics.median(rates[name]),
        }
        for name in peers
    }


def measure(commands: Commands, calls: int, rounds: int) -> Figures:
    """All figures of all variants; times in µs or ms as named. Those of processors kept awake begin with `awake_`."""
    starts: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
    for name in commands:
        for _ in range(max(5, rounds)):
            peer = Peer(commands[name])
            starts[name].append(peer.start())
            peer.stop()
    peers = {name: Peer(command) for name, command in commands.items()}
    for peer in peers.values():
        peer.start()
    found = load(peers, calls, rounds)
    with awake():
        for name, row in load(peers, calls, rounds).items():
            found[name] |= {f"awake_{what}": figure for what, figure in row.items()}
    for name, peer in peers.items():
        found[name] |= {
            "initialize_ms": statistics.median(start[0] for start in starts[name]) * 1e3,
            "first_call_ms": statistics.median(start[1] for start in starts[name]) * 1e3,
            "resident_mib": peer.resident(),
        }
        peer.stop()
    return found


def report(figures: Figures) -> str:
    """Tables for people; ratios are to no proxy and to `cat`."""
    base, hop = figures["no proxy"], figures["cat"]
    lines = []
    for title, prefix in (("the machine as it is", ""), ("its processors kept awake", "awake_")):
        p50, p99, rate = (prefix + what for what in ("p50_us", "p99_us", "calls_per_s"))
        head = f"{title:<26}{'p50 µs':>8}{'added':>8}{'×none':>7}{'×cat':>7}{'p99 µs':>8}{'calls/s':>10}{'×none':>7}"
        lines.append(head)
        for name, row in figures.items():
            lines.append(
                f"{name:<26}{row[p50]:>8.1f}{row[p50] - base[p50]:>8.1f}{row[p50] / base[p50]:>7.2f}"
                f"{row[p50] / hop[p50]:>7.2f}{row[p99]:>8.1f}{row[rate]:>10.0f}{row[rate] / base[rate]:>7.2f}"
            )
    lines.append(f"{'':<26}{'initialize ms':>15}{'first call ms':>15}{'RSS MiB':>9}")
    for name, row in figures.items():
        lines.append(f"{name:<26}{row['initialize_ms']:>15.1f}{row['first_call_ms']:>15.1f}{row['resident_mib']:>9.1f}")
    return "\n".join(lines)


def main(
    description: str | None = __doc__,
    variants: Callable[[Path], Commands] = variants,
    measure: Callable[[Commands, int, int], Figures] = measure,
    report: Callable[[Figures], str] = report,
) -> None:
    """Measure and print. Benchmarks of other variants give their own."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=2000, help="calls of each variant a round (default: 2000)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    compileall.compile_dir(ROOT / "intercept_py", quiet=1)
    folder = Path(tempfile.mkdtemp(prefix="intercept-bench-"))
    try:
        figures = measure(variants(folder), options.calls, options.rounds)
    finally:
        shutil.rmtree(folder)
    print(json.dumps(figures, indent=2) if options.json else report(figures))


if __name__ == "__main__":
    main()
