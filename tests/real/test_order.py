"""What one side sends in one write arrives at the other side in that order."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.commands import received
from tests.support.wire import MODERN_META, StartProxy


@pytest.mark.parametrize("modern", [False, True])
def test_progress_that_the_server_reports_arrives_before_its_result(proxy: StartProxy, modern: bool) -> None:
    """MCP: progress ends with the response. A client drops reports for a request that it takes for finished."""
    wire = proxy("default: allow\n")
    meta = {**(MODERN_META if modern else {}), "progressToken": "mine"}
    for _ in range(20):
        ident = wire.start("tools/call", {"name": "progress", "arguments": {"steps": 3}, "_meta": meta})
        arrived = [wire.recv() for _ in range(4)]
        assert [message.get("params", {}).get("progress") for message in arrived] == [1, 2, 3, None]
        assert arrived[3]["id"] == ident


def test_messages_of_the_client_reach_the_server_in_order(proxy: StartProxy, record: Path) -> None:
    wire = proxy("tools: {echo: {rules: [{action: allow, rate_limit: 1000/minute}]}}\n")
    sent = []
    for number in range(100):
        call = {"name": "echo", "arguments": {"text": str(number)}}
        sent.append({"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": call})
        sent.append({"jsonrpc": "2.0", "method": "notifications/roots/list_changed"})
        sent.append({"jsonrpc": "2.0", "id": f"ping-{number}", "method": "ping"})
    wire.send_raw(b"".join(json.dumps(message).encode() + b"\n" for message in sent))
    wire.close_stdin()
    assert len(wire.recv_all()) == 200
    assert wire.wait() == 0
    assert [message["method"] for message in received(record)] == [message["method"] for message in sent]
    texts = [
        message["params"]["arguments"]["text"] for message in received(record) if message["method"] == "tools/call"
    ]
    assert texts == [str(number) for number in range(100)]
