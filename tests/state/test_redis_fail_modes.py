"""`fail: open` on a real Redis that goes away and comes back while a proxy uses it."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import redis_store
from tests.support.commands import received
from tests.support.redis_store import Server
from tests.support.wire import StartProxy, Wire

POLICY = """
tools:
  echo: {rules: [{name: open, rate_limit: {max: 5, window: 3600, per: global, fail: open}}]}
  environment: {rules: [{name: closed, rate_limit: {max: 5, window: 3600, per: global}}]}
"""
SOON = 3.0  # several of the waits of 0.25 s, on a busy machine


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with redis_store.server(tmp_path / "redis") as server:
        yield server


def passes(wire: Wire, tool: str) -> bool:
    """Whether a call is allowed; it is answered soon."""
    arguments = {"text": "x"} if tool == "echo" else {"name": "HOME"}
    return "isError" not in wire.call(tool, arguments, timeout=SOON)["result"]


@pytest.mark.parametrize("outage", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "stopped"])
def test_while_redis_is_away_open_limits_pass_on_record_and_closed_ones_deny(
    outage: signal.Signals, proxy: StartProxy, server: Server, record: Path, audit: Path
) -> None:
    wire = proxy(POLICY, None, "--state", server.url)
    wire.initialize()
    assert passes(wire, "echo")
    assert passes(wire, "environment")

    if outage is signal.SIGKILL:
        server.kill()
    else:
        server.signal(outage)
    until = time.monotonic() + 1
    away = []
    while time.monotonic() < until:
        away.append((passes(wire, "echo"), passes(wire, "environment")))
    assert set(away) == {(True, False)}
    assert len(away) > 5, "calls wait for Redis one by one"

    if outage is signal.SIGKILL:
        server.start()
    else:
        server.signal(signal.SIGCONT)
    deadline = time.monotonic() + 20
    while not passes(wire, "environment"):
        assert time.monotonic() < deadline, "it never recovered"
        time.sleep(0.02)
    counted = sum(passes(wire, "echo") for _ in range(10))
    assert counted <= 5
    assert wire.finish() == 0

    records = [json.loads(line) for line in audit.read_bytes().splitlines()]
    decisions = [entry for entry in records if entry["event"] == "decision"]
    echoed = [entry for entry in decisions if entry.get("tool") == "echo" and entry["effect"] == "allow"]
    uncounted = [entry for entry in echoed if "uncounted" in entry]
    assert len(uncounted) == len(away)
    assert all(entry["uncounted"][0]["rule"] == "open" for entry in uncounted)
    assert len(echoed) - len(uncounted) == 1 + counted
    assert sum(is_call_of(message, "echo") for message in received(record)) == len(echoed)
    refused = [entry for entry in decisions if entry.get("tool") == "environment" and entry["effect"] == "deny"]
    assert len(refused) >= len(away)
    assert {entry["code"] for entry in refused} == {"state_unavailable"}
    told = wire.stderr()
    assert told.count("limits are checked again") == 1
    assert 1 <= told.count("error:") <= 4, told
    assert "Redis at 127.0.0.1" in told


def is_call_of(message: dict[str, Any], tool: str) -> bool:
    return bool(message["method"] == "tools/call" and message["params"]["name"] == tool)


def test_the_fail_mode_of_the_command_line_is_for_limits_that_have_none(proxy: StartProxy, server: Server) -> None:
    policy = POLICY.replace("fail: open", "fail: closed")
    wire = proxy(policy, None, "--state", server.url, "--state-fail-mode", "open")
    wire.initialize()
    server.kill()
    assert [passes(wire, tool) for tool in ("echo", "environment")] == [False, True]
    wire.finish()
