"""Any interleaving of messages, sensible or hostile: one answer per request, no call forwarded that was not judged."""

from __future__ import annotations

import json
import re
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conversation import Conversation, Message, call

MAX = 3
POLICY = f"""
default: deny
hide: [secret]
tools:
  free: {{}}
  limited:
    rules:
      - rate_limit: {{max: {MAX}, window: 3600, per: global}}
  checked:
    rules:
      - validate: {{required_args: true}}
  forbidden:
    rules:
      - action: deny
"""
ALLOWED = {"free", "limited", "checked"}
LISTED = {
    "tools": [
        {"name": name, "inputSchema": {"type": "object", "required": ["a"] if name == "checked" else []}}
        for name in ("free", "limited", "checked", "forbidden", "secret")
    ]
}

IDS = st.integers(0, 5) | st.sampled_from(["0", "x", "x" * 2000, None, True, 1.0, 2**60])
NAMES = st.sampled_from(["free", "limited", "checked", "forbidden", "secret", "unknown", "Free", "free\n", ""])
ARGUMENTS = st.sampled_from([{}, {"a": 1}, {"A": 1}, {"a": ""}, {"a": 2**60}, {"a": {"b": [1, 2, {}]}}])

CALLS = st.builds(call, IDS, NAMES, ARGUMENTS)
OTHERS = st.builds(
    lambda id, method: {"jsonrpc": "2.0", "id": id, "method": method},
    IDS,
    st.sampled_from(["ping", "tools/list", "resources/list", "x/unknown", "tools/Call", "tools/call"]),
)
CANCELS = IDS.map(lambda id: {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": id}})
RAW = st.sampled_from(
    [
        b"",
        b"nonsense",
        b"[" + json.dumps(call(1, "forbidden")).encode() + b"]",
        json.dumps(call(2, "free")).encode().replace(b'"free"', b'"free","name":"forbidden"'),
        json.dumps(call(3, "free")).encode() + json.dumps(call(4, "forbidden")).encode(),
        b"\xef\xbb\xbf" + json.dumps(call(1, "free")).encode(),
    ]
)
FROM_CLIENT = st.lists(CALLS | OTHERS | CANCELS | RAW, min_size=1, max_size=4).map(lambda said: ("client", said))
# The server answers the k-th of its open requests, answers twice, answers what nobody asked, or babbles.
FROM_UPSTREAM = st.tuples(
    st.just("server"),
    st.tuples(
        st.sampled_from(["answer", "answer twice", "error", "unknown", "noise", "list changed", "ask"]),
        st.integers(0, 5),
    ),
)


def serve(talk: Conversation, open_requests: list[Message], what: str, which: int) -> None:
    """One thing that the server does."""
    if what in ("answer", "answer twice", "error") and open_requests:
        request = open_requests.pop(which % len(open_requests))
        reply: Message = {"jsonrpc": "2.0", "id": request["id"]}
        if what == "error":
            reply["error"] = {"code": -32000, "message": "no"}
        else:
            reply["result"] = LISTED if request["method"] == "tools/list" else {"content": []}
        talk.reply(*[reply] * (2 if what == "answer twice" else 1))
    elif what == "unknown":
        talk.reply({"jsonrpc": "2.0", "id": 10_000 + which, "result": {}})
    elif what == "noise":
        talk.reply(b"listening on port 3000")
    elif what == "list changed":
        talk.reply({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"})
    elif what == "ask":
        talk.reply({"jsonrpc": "2.0", "id": f"s{which}", "method": "sampling/createMessage", "params": {}})


def is_request(message: Any) -> bool:
    return isinstance(message, dict) and "method" in message and "id" in message


def is_id(id: Any) -> bool:
    return (type(id) is int and abs(id) < 2**53) or (type(id) is str and len(id) <= 1024)


@given(st.lists(FROM_CLIENT | FROM_UPSTREAM, max_size=25))
@settings(max_examples=200, deadline=None)
def test_any_interleaving_yields_one_answer_per_request_and_forwards_no_unjudged_call(steps: list[Any]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        talk = Conversation(POLICY, Path(folder))
        asked: list[Any] = []
        cancelled: set[Any] = set()
        malformed: list[int] = []
        open_requests: list[Message] = []
        seen = 0
        for side, what in steps:
            if side == "client":
                for message in what:
                    asked += [message["id"]] if is_request(message) else []
                    if isinstance(message, bytes):
                        malformed += map(int, re.findall(rb'"id": (\d+)', message))
                    elif message["method"] == "notifications/cancelled":
                        cancelled.add(str(message["params"]["requestId"]))
                talk.say(*what)
            else:
                serve(talk, open_requests, *what)
            open_requests += [message for message in talk.upstream[seen:] if is_request(message)]
            seen = len(talk.upstream)
        talk.end()
        check_calls(talk)
        check_answers(talk, asked, cancelled, malformed)


def check_calls(talk: Conversation) -> None:
    calls = talk.calls()
    assert {message["params"]["name"] for message in calls} <= ALLOWED
    assert sum(message["params"]["name"] == "limited" for message in calls) <= MAX
    records = [
        record for record in talk.records() if record["event"] == "decision" and record["method"] == "tools/call"
    ]
    allowed = [record for record in records if record["effect"] == "allow"]
    assert len(calls) <= len(allowed)
    for message in calls:
        if message["params"]["name"] == "checked":
            assert message["params"]["arguments"].get("a") not in (None, "")
    for message in talk.upstream:
        assert not is_request(message) or type(message["id"]) is int


def check_answers(talk: Conversation, asked: list[Any], cancelled: set[str], malformed: list[int]) -> None:
    """At most one answer for each use of an id; exactly one where the id was used once and never cancelled.

    A malformed request may be refused under its id or, where that is not certain, under none.
    """
    answers = [message["id"] for message in talk.client if "method" not in message and message["id"] is not None]
    for id in {id for id in asked if is_id(id) and type(id) is not bool}:
        uses = sum(other == id and type(other) is type(id) for other in asked)
        got = sum(other == id and type(other) is type(id) for other in answers)
        spoiled = sum(other == id and type(other) is type(id) for other in malformed)
        assert got <= uses + spoiled
        if uses == 1 and not spoiled and str(id) not in cancelled:
            assert got == 1
    assert all(type(id) in (int, str) for id in answers)
