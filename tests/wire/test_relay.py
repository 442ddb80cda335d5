"""The relay's conversation, command by command. No process, no clock, no policy."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from intercept_py.model import NO_TOOL
from intercept_py.wire import relay as wire
from intercept_py.wire.commands import (
    Command,
    Judge,
    Note,
    Settle,
    ToClient,
    ToolsKnown,
    ToUpstream,
    Unanswered,
    Withdraw,
)
from intercept_py.wire.listing import MAX_PAGES
from intercept_py.wire.messages import DECISION_KEY, DENIED_CODE, PROTOCOL_VERSION_KEY, SUBSCRIPTION_KEY, Denial
from intercept_py.wire.relay import Relay

Message = dict[str, Any]
DENIAL = Denial("d-1", "limit_reached", "rate limit of 10 per 60 s reached", "cancels", 11.2)
MODERN = {PROTOCOL_VERSION_KEY: "2026-07-28", "io.modelcontextprotocol/clientCapabilities": {}}


def line(message: Message) -> bytes:
    return json.dumps(message).encode()


def request(id: Any, method: str, **params: Any) -> bytes:
    return line({"jsonrpc": "2.0", "id": id, "method": method, "params": params})


def call(id: Any = 1, tool: str = "cancel_run", **more: Any) -> bytes:
    return request(id, "tools/call", name=tool, arguments={"runId": "run_1"}, **more)


def cancelled(id: Any) -> bytes:
    return line({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": id}})


def answer(ticket: int, result: Any) -> bytes:
    return line({"jsonrpc": "2.0", "id": ticket, "result": result})


def judged(commands: list[Command]) -> int:
    """The ticket of the one `Judge` that there must be."""
    (judge,) = commands
    assert isinstance(judge, Judge)
    return judge.ticket


def forwarded(relay: Relay, data: bytes) -> int:
    """Send a request through an allowing judge; its ticket."""
    ticket = judged(relay.from_client(data))
    (sent,) = relay.decided(ticket, None, now=0.0)
    assert isinstance(sent, ToUpstream)
    return ticket


def sent_to(kind: type[ToClient] | type[ToUpstream], commands: list[Command]) -> list[Message]:
    return [json.loads(command.data) for command in commands if isinstance(command, kind)]


def settled(commands: list[Command]) -> list[tuple[int, str]]:
    return [(command.ticket, command.outcome) for command in commands if isinstance(command, Settle)]


# ---- client to server


def test_nothing_is_sent_before_it_was_decided() -> None:
    commands = Relay().from_client(call())
    assert [type(command) for command in commands] == [Judge]


def test_an_allowed_call_goes_on_under_our_id_as_the_value_that_was_judged() -> None:
    relay = Relay()
    spelled = b'{ "id" : "a/1","jsonrpc":"2.0", "method":"tools\\/call",'
    spelled += b'"params":{"arguments":{"n":1e2},"name":"\\u0065cho"}}\r'
    ticket = judged(relay.from_client(spelled))
    (sent,) = relay.decided(ticket, None, now=0.0)
    expected = b'{"id":1,"jsonrpc":"2.0","method":"tools/call","params":{"arguments":{"n":100.0},"name":"echo"}}'
    assert isinstance(sent, ToUpstream)
    assert sent.data == expected


def test_a_denied_call_is_answered_with_a_tool_result_and_goes_nowhere() -> None:
    relay = Relay()
    (reply,) = relay.decided(judged(relay.from_client(call(id="x"))), DENIAL, now=0.0)
    text = "[INTERCEPT POLICY DENIED] rate limit of 10 per 60 s reached; rule `cancels`; retry in 12 s"
    assert sent_to(ToClient, [reply]) == [
        {
            "jsonrpc": "2.0",
            "id": "x",
            "result": {
                "content": [{"type": "text", "text": text}],
                "isError": True,
                "_meta": {DECISION_KEY: {"id": "d-1", "code": "limit_reached", "rule": "cancels", "retry_after": 11.2}},
            },
        }
    ]


@pytest.mark.parametrize(
    ("wait", "told", "text"),
    [(60.0, 60.0, "60 s"), (60.0004, 60.001, "61 s"), (0.0001, 0.001, "1 s"), (1.9996, 2.0, "2 s"), (0.0, 0.0, "1 s")],
)
def test_who_waits_as_long_as_it_is_told_does_not_come_too_early(wait: float, told: float, text: str) -> None:
    relay = Relay()
    denial = msgspec.structs.replace(DENIAL, retry_after=wait)
    (reply,) = sent_to(ToClient, relay.decided(judged(relay.from_client(call())), denial, now=0.0))
    assert reply["result"]["_meta"][DECISION_KEY]["retry_after"] == told
    assert reply["result"]["content"][0]["text"].endswith(f"retry in {text}")


def test_a_denial_of_a_modern_call_is_complete_and_never_structured() -> None:
    relay = Relay()
    commands = relay.decided(judged(relay.from_client(call(_meta=MODERN))), DENIAL, now=0.0)
    (reply,) = sent_to(ToClient, commands)
    assert reply["result"]["resultType"] == "complete"
    assert "structuredContent" not in reply["result"]


def test_a_denied_method_is_answered_with_an_error_outside_the_reserved_codes() -> None:
    relay = Relay()
    commands = relay.decided(judged(relay.from_client(request(3, "resources/read", uri="file:///x"))), DENIAL, now=0.0)
    (reply,) = sent_to(ToClient, commands)
    assert reply["error"]["code"] == DENIED_CODE
    assert not -32768 <= DENIED_CODE <= -32000
    assert "rate limit of 10" in reply["error"]["message"]


@pytest.mark.parametrize("id", [2.0, 2.5, None, True, [], {}, 2**53])
def test_a_call_whose_id_is_no_id_is_refused(id: Any) -> None:
    commands = Relay().from_client(call(id=id))
    assert not any(isinstance(command, Judge | ToUpstream) for command in commands)
    assert sent_to(ToClient, commands)[0]["error"]["code"] == -32600


def test_a_call_without_an_id_is_refused() -> None:
    data = line({"jsonrpc": "2.0", "method": "tools/call", "params": {"name": "cancel_run"}})
    assert [type(command) for command in Relay().from_client(data)] == [Note, ToClient]


@pytest.mark.parametrize(
    "data",
    [
        b"[" + call() + b"]",
        call() + call(),
        b"\xef\xbb\xbf" + call(),
        call().replace(b'"2.0"', b'"1.0"'),
        call().replace(b'"jsonrpc": "2.0", ', b""),
        call().replace(b'"id": 1', b'"id": 1, "Id": 1'),
        call().replace(b'"id": 1', b'"id": 1, "result": {}'),
        call().replace(b'"name"', b'"name": "list_runs", "name"'),
        call().replace(b'"name"', b'"name": "list_runs", "Name"'),
        call().replace(b'"arguments"', b'"Arguments"'),
        call().replace(b'"cancel_run"', b"7"),
        call().replace(b'{"runId": "run_1"}', b"[]"),
        call().replace(b'"run_1"', b"9007199254740992"),
        call().replace(b'"run_1"', b"1e999"),
        call().replace(b'"tools/call"', b"7"),
        call().replace(b'"tools/call"', b'"tools\\u0000/call"'),
        request(1, "tools/call").replace(b"{}", b"null"),
        request(1, "tools/call").replace(b"{}", b'{"name":"a","_meta":null}'),
        request(1, "tools/call", name="a", _meta={"IO.modelcontextprotocol/protocolVersion": "x"}),
        request(1, "tools/call", name="a", _meta={"io.modelcontextprotocol/ClientCapabilities": {}}),
        request(1, "tools/call", name="a", _meta={"io.modelcontextprotocol/clientinfo": {}}),
        request(1, "tools/call", name="a", _meta={"io.modelcontextprotocol/loglevel": "debug"}),
        request(1, "tools/call", name="a", _meta={"progressToken": 1, "ProgressToken": 2}),
        request(1, "tools/call", name="a", _meta={"progressToken": 1.0}),
        request(1, "tools/call", name="a", _meta={"progressToken": 1.5}),
        request(1, "tools/call", name="a", _meta={"progressToken": None}),
        request(1, "tools/call", name="a", _meta={"progressToken": True}),
        request(1, "tools/call", name="a", _meta={"progressToken": [1]}),
        request(1, "prompts/get", name="a", _meta={"progressToken": 2.0}),
        request(1, "tools/call", name="a", _meta={"progressToken": 2**53}),
        b'"tools/call"',
        b"null",
    ],
)
def test_what_is_not_understood_is_refused_with_one_error_and_never_forwarded(data: bytes) -> None:
    commands = Relay().from_client(data)
    assert not any(isinstance(command, Judge | ToUpstream) for command in commands)
    (reply,) = sent_to(ToClient, commands)
    assert "\n" not in reply["error"]["message"]


def test_what_clients_say_of_themselves_and_others_add_is_no_look_alike() -> None:
    prefix = "io.modelcontextprotocol/"
    meta: Message = {f"{prefix}{name}": {} for name in ("clientCapabilities", "clientInfo", "logLevel")}
    meta |= {f"{prefix}protocolVersion": "2026-07-28", "progressToken": 1, "traceparent": "", "com.example/Trace": 1}
    (command,) = Relay().from_client(request(1, "tools/call", name="a", _meta=meta))
    assert isinstance(command, Judge)


def test_a_refused_request_is_answered_under_its_own_id() -> None:
    (reply,) = sent_to(ToClient, Relay().from_client(call(id=5).replace(b'"run_1"', b"9007199254740992")))
    assert reply["id"] == 5


def test_a_second_request_with_an_id_in_flight_is_refused_without_touching_the_first() -> None:
    relay = Relay()
    ticket = forwarded(relay, call(id=1))
    (reply,) = sent_to(ToClient, relay.from_client(call(id=1, tool="other")))
    assert reply["id"] is None
    (late,) = sent_to(ToClient, relay.from_upstream(answer(ticket, {"content": []})))
    assert late["id"] == 1
    assert isinstance(relay.from_client(call(id=1))[0], Judge)


def test_the_ids_1_and_string_1_are_two_ids() -> None:
    relay = Relay()
    first, second = forwarded(relay, call(id=1)), forwarded(relay, call(id="1"))
    (one,) = sent_to(ToClient, relay.from_upstream(answer(second, {})))
    (two,) = sent_to(ToClient, relay.from_upstream(answer(first, {})))
    assert [one["id"], two["id"]] == ["1", 1]


def test_requests_in_flight_are_bounded() -> None:
    relay = Relay()
    for number in range(wire.MAX_PENDING):
        forwarded(relay, call(id=number))
    (reply,) = sent_to(ToClient, relay.from_client(call(id="one more")))
    assert reply["id"] == "one more"
    assert "in flight" in reply["error"]["message"]


# ---- cancellation


def test_a_cancellation_reaches_the_server_under_our_id() -> None:
    relay = Relay()
    ticket = forwarded(relay, call(id="c"))
    (note,) = sent_to(ToUpstream, relay.from_client(cancelled("c")))
    assert note["params"]["requestId"] == ticket


def test_a_call_cancelled_while_it_is_judged_never_reaches_the_server() -> None:
    relay = Relay()
    ticket = judged(relay.from_client(call(id=7)))
    assert relay.from_client(cancelled(7)) == [Withdraw(ticket), Unanswered(7)]
    assert relay.decided(ticket, None, now=0.0) == [Settle(ticket, "withdrawn")]


@pytest.mark.parametrize("id", [99, True, None, [1], "1"])
def test_a_cancellation_of_nothing_in_flight_is_dropped(id: Any) -> None:
    relay = Relay()
    forwarded(relay, call(id=1))
    assert [type(command) for command in relay.from_client(cancelled(id))] == [Note]


def test_a_cancelled_request_that_the_server_never_answers_ends_without_an_answer() -> None:
    relay = Relay()
    ticket = forwarded(relay, call(id=1))
    relay.from_client(cancelled(1))
    commands = relay.expire(now=1000.0, timeout=300.0)
    assert settled(commands) == [(ticket, "cancelled")]
    assert not sent_to(ToClient, commands)
    assert Unanswered(1) in commands


def test_a_server_with_one_stream_for_all_ends_none_for_a_cancelled_request() -> None:
    relay = Relay(correlate=True)
    forwarded(relay, call(id=1))
    assert [command for command in relay.from_client(cancelled(1)) if not isinstance(command, ToUpstream)] == [
        Unanswered(1)
    ]


# ---- server to client


def test_an_answer_gets_the_clients_id_back_and_keeps_its_bytes() -> None:
    relay = Relay()
    ticket = forwarded(relay, call(id="x"))
    data = b'{"result":{"content": [], "n":1.50, "new":{"field":[null]}},"jsonrpc":"2.0","id":%d}' % ticket
    commands = relay.from_upstream(data)
    assert commands[1] == ToClient(
        b'{"jsonrpc":"2.0","id":"x","result":{"content": [], "n":1.50, "new":{"field":[null]}}}', "x", True
    )


@pytest.mark.parametrize(
    ("result", "outcome"),
    [({"content": []}, "ok"), ({"isError": True}, "tool_error"), ({"isError": "true"}, "ok"), (["x"], "ok"), (7, "ok")],
)
def test_how_a_call_ended_is_read_from_its_result(result: Any, outcome: str) -> None:
    relay = Relay()
    ticket = forwarded(relay, call())
    assert settled(relay.from_upstream(answer(ticket, result))) == [(ticket, outcome)]


def test_an_error_is_relayed_with_its_data() -> None:
    relay = Relay()
    ticket = forwarded(relay, call(id=4))
    data = line({"jsonrpc": "2.0", "id": ticket, "error": {"code": -32602, "message": "no", "data": {"a": 1}}})
    commands = relay.from_upstream(data)
    assert commands[0] == Settle(ticket, "error", -32602, b'{"code": -32602, "message": "no", "data": {"a": 1}}')
    assert sent_to(ToClient, commands)[0]["error"] == {"code": -32602, "message": "no", "data": {"a": 1}}


def test_unknown_ids_second_answers_and_noise_are_dropped() -> None:
    relay = Relay()
    ticket = forwarded(relay, call())
    assert [type(c) for c in relay.from_upstream(answer(999, {}))] == [Note]
    assert [type(c) for c in relay.from_upstream(answer(str(ticket), {}))] == [Note]  # type: ignore[arg-type]
    assert [type(c) for c in relay.from_upstream(b"Server listening on port 3000")] == [Note]
    assert [type(c) for c in relay.from_upstream(answer(ticket, {}))] == [Settle, ToClient]
    assert [type(c) for c in relay.from_upstream(answer(ticket, {}))] == [Note]


@pytest.mark.parametrize("members", [{}, {"result": {}, "error": {"code": 1, "message": ""}}])
def test_an_answer_that_is_neither_result_nor_error_becomes_an_error(members: Message) -> None:
    relay = Relay()
    ticket = forwarded(relay, call(id=3))
    commands = relay.from_upstream(line({"jsonrpc": "2.0", "id": ticket, **members}))
    (reply,) = sent_to(ToClient, commands)
    assert (reply["id"], reply["error"]["code"]) == (3, -32603)


def test_an_answer_that_cannot_be_read_fails_its_request_at_once() -> None:
    relay = Relay()
    ticket = forwarded(relay, call(id=3))
    commands = relay.from_upstream(b'{"jsonrpc":"2.0","id":%d,"result":{"text":"\xff"}}' % ticket)
    (reply,) = sent_to(ToClient, commands)
    assert reply["id"] == 3
    assert settled(commands) == [(ticket, "error")]


def test_a_raw_carriage_return_in_an_answer_does_not_end_the_clients_line() -> None:
    relay = Relay()
    ticket = forwarded(relay, call())
    commands = relay.from_upstream(b'{"jsonrpc":"2.0","id":%d,"result":{"a":\r1}}\r' % ticket)
    assert commands[1] == ToClient(b'{"jsonrpc":"2.0","id":1,"result":{"a": 1}}', 1, True)


def test_a_question_of_the_server_is_judged_and_its_answer_matched() -> None:
    relay = Relay()
    (judge,) = relay.from_upstream(request("s-1", "sampling/createMessage", messages=[]))
    assert isinstance(judge, Judge)
    assert not judge.upward
    (asked,) = sent_to(ToClient, relay.decided(judge.ticket, None, now=0.0))
    assert asked["id"] == "s-1"
    commands = relay.from_client(answer("s-1", {"role": "assistant"}))  # type: ignore[arg-type]
    assert settled(commands) == [(judge.ticket, "ok")]
    assert sent_to(ToUpstream, commands)[0]["id"] == "s-1"
    assert [type(c) for c in relay.from_client(answer("s-1", {}))] == [Note]  # type: ignore[arg-type]


def test_a_denied_question_of_the_server_is_answered_to_the_server() -> None:
    relay = Relay()
    (judge,) = relay.from_upstream(request(1, "sampling/createMessage", messages=[]))
    assert isinstance(judge, Judge)
    commands = relay.decided(judge.ticket, DENIAL, now=0.0)
    assert not sent_to(ToClient, commands)
    assert sent_to(ToUpstream, commands)[0]["error"]["code"] == DENIED_CODE


def test_the_server_may_withdraw_its_own_question_only() -> None:
    relay = Relay()
    (judge,) = relay.from_upstream(request("q", "elicitation/create"))
    assert isinstance(judge, Judge)
    relay.decided(judge.ticket, None, now=0.0)
    commands = relay.from_upstream(cancelled("q"))
    assert settled(commands) == [(judge.ticket, "cancelled")]
    assert [type(c) for c in relay.from_upstream(cancelled("unknown"))] == [Note]


# ---- lists


def tools(*names: str, **more: Any) -> Message:
    return {"tools": [{"name": name, "inputSchema": {"type": "object"}, "x-unknown": 1} for name in names], **more}


def test_a_list_passes_untouched_where_nothing_is_hidden() -> None:
    relay = Relay()
    ticket = forwarded(relay, request(1, "tools/list"))
    data = b'{"jsonrpc":"2.0","id":%d,"result":{"tools": "not even a list"}}' % ticket
    assert relay.from_upstream(data)[1] == ToClient(
        b'{"jsonrpc":"2.0","id":1,"result":{"tools": "not even a list"}}', 1, True
    )


def test_hidden_tools_vanish_and_everything_else_stays() -> None:
    relay = Relay(hidden=lambda name: name == "delete_project")
    ticket = forwarded(relay, request(1, "tools/list", cursor="p1"))
    page = tools("echo", "delete_project", nextCursor="p2", _meta={"a": 1}, other=[1, {"b": None}])
    (reply,) = sent_to(ToClient, relay.from_upstream(answer(ticket, page)))
    assert reply["result"] == tools("echo", nextCursor="p2", _meta={"a": 1}, other=[1, {"b": None}])


def test_a_modern_list_that_policy_changed_is_private() -> None:
    relay = Relay(hidden=lambda name: name == "b")
    ticket = forwarded(relay, request(1, "tools/list", _meta=MODERN))
    page = tools("a", "b", resultType="complete", ttlMs=1000, cacheScope="public")
    (reply,) = sent_to(ToClient, relay.from_upstream(answer(ticket, page)))
    assert reply["result"]["cacheScope"] == "private"
    ticket = forwarded(relay, request(1, "tools/list", _meta=MODERN))
    (reply,) = sent_to(ToClient, relay.from_upstream(answer(ticket, tools("a", cacheScope="public"))))
    assert reply["result"]["cacheScope"] == "public"


@pytest.mark.parametrize(
    "result", [{}, [], {"tools": {}}, {"tools": [1]}, {"tools": [{"name": 1}]}, {"tools": [], "nextCursor": 3}]
)
def test_a_list_that_cannot_be_read_becomes_an_error_never_an_unfiltered_list(result: Any) -> None:
    relay = Relay(hidden=lambda name: name == "b")
    ticket = forwarded(relay, request(1, "tools/list"))
    (reply,) = sent_to(ToClient, relay.from_upstream(answer(ticket, result)))
    assert reply["error"]["code"] == -32603


def test_a_duplicate_key_cannot_smuggle_a_hidden_name_past_the_filter() -> None:
    relay = Relay(hidden=lambda name: name == "secret")
    ticket = forwarded(relay, request(1, "tools/list"))
    data = b'{"jsonrpc":"2.0","id":%d,"result":{"tools":[{"name":"secret","name":"a"}]}}' % ticket
    (reply,) = (command.data for command in relay.from_upstream(data) if isinstance(command, ToClient))
    assert b"secret" not in reply


def test_the_proxy_asks_for_all_pages_itself_and_remembers_the_schemas() -> None:
    relay = Relay()
    (first,) = sent_to(ToUpstream, relay.fetch_tools(MODERN, now=0.0))
    assert first["params"] == {"_meta": MODERN}
    assert relay.fetch_tools(MODERN, now=0.0) == []
    (second,) = sent_to(ToUpstream, relay.from_upstream(answer(first["id"], tools("a", nextCursor="2"))))
    assert second["params"] == {"_meta": MODERN, "cursor": "2"}
    assert not relay.catalogue.known
    assert relay.from_upstream(answer(second["id"], tools("b"))) == [ToolsKnown()]
    assert relay.catalogue.lookup("b").listed  # type: ignore[union-attr]
    assert not relay.catalogue.lookup("c").listed  # type: ignore[union-attr]


def test_a_list_that_never_ends_is_given_up() -> None:
    relay = Relay()
    (page,) = sent_to(ToUpstream, relay.fetch_tools({}, now=0.0))
    for _ in range(MAX_PAGES - 1):
        (page,) = sent_to(ToUpstream, relay.from_upstream(answer(page["id"], tools("a", nextCursor="more"))))
    (known,) = relay.from_upstream(answer(page["id"], tools("a", nextCursor="more")))
    assert isinstance(known, ToolsKnown)
    assert known.problem is not None
    assert not relay.catalogue.known


def test_a_refused_or_missing_list_is_a_problem_that_is_reported() -> None:
    relay = Relay()
    (page,) = sent_to(ToUpstream, relay.fetch_tools({}, now=0.0))
    error = line({"jsonrpc": "2.0", "id": page["id"], "error": {"code": -32601, "message": "no tools"}})
    (known,) = relay.from_upstream(error)
    assert isinstance(known, ToolsKnown)
    assert known.problem is not None
    relay.fetch_tools({}, now=0.0)
    assert any(isinstance(command, ToolsKnown) for command in relay.expire(now=1000.0, timeout=300.0))
    relay.fetch_tools({}, now=0.0)
    assert any(isinstance(command, ToolsKnown) for command in relay.upstream_gone("gone"))


def test_a_changed_list_is_forgotten_and_what_the_client_sees_amends_it() -> None:
    relay = Relay()
    (page,) = sent_to(ToUpstream, relay.fetch_tools({}, now=0.0))
    relay.from_upstream(answer(page["id"], tools("a")))
    ticket = forwarded(relay, request(1, "tools/list"))
    relay.from_upstream(answer(ticket, {"tools": [{"name": "a", "inputSchema": {"required": ["x"]}}]}))
    assert relay.catalogue.lookup("a").schema == {"required": ["x"]}  # type: ignore[union-attr]
    relay.from_upstream(line({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"}))
    assert relay.catalogue.lookup("a") is None


def test_a_changed_policy_is_announced_only_where_the_server_announces_changes() -> None:
    relay = Relay()
    assert relay.announce_tools() == []
    ticket = forwarded(relay, request(1, "initialize"))
    relay.from_upstream(answer(ticket, {"capabilities": {"tools": {"listChanged": True}}}))
    assert [m["method"] for m in sent_to(ToClient, relay.announce_tools())] == ["notifications/tools/list_changed"]


# ---- subscriptions (modern)


def test_a_subscription_keeps_the_clients_id_everywhere() -> None:
    relay = Relay()
    listen = request("sub", "subscriptions/listen", _meta=MODERN, notifications={"toolsListChanged": True})
    ticket = forwarded(relay, listen)
    for subscription in (ticket, str(ticket)):
        note = {"method": "notifications/tools/list_changed", "params": {"_meta": {SUBSCRIPTION_KEY: subscription}}}
        judge = relay.from_upstream(line({"jsonrpc": "2.0", **note}))[-1]
        assert isinstance(judge, Judge)
        (seen,) = sent_to(ToClient, relay.decided(judge.ticket, None, now=0.0))
        assert seen["params"]["_meta"][SUBSCRIPTION_KEY] == "sub"
    (announced,) = sent_to(ToClient, relay.announce_tools())
    assert announced["params"]["_meta"][SUBSCRIPTION_KEY] == "sub"
    assert relay.expire(now=1e9, timeout=300.0) == []
    (end,) = sent_to(ToClient, relay.from_upstream(answer(ticket, {"_meta": {SUBSCRIPTION_KEY: ticket}})))
    assert (end["id"], end["result"]["_meta"][SUBSCRIPTION_KEY]) == ("sub", "sub")
    assert relay.announce_tools() == []


def test_a_notification_for_a_subscription_that_is_not_open_is_dropped() -> None:
    note = {"method": "notifications/resources/updated", "params": {"_meta": {SUBSCRIPTION_KEY: 12}}}
    assert [type(c) for c in Relay().from_upstream(line({"jsonrpc": "2.0", **note}))] == [Note]


# ---- ends


def test_when_the_server_ends_every_open_request_gets_its_one_answer() -> None:
    relay = Relay()
    tickets = [forwarded(relay, call(id=number)) for number in range(3)]
    commands = relay.upstream_gone("the server ended")
    assert settled(commands) == [(ticket, "upstream_gone") for ticket in tickets]
    assert [reply["id"] for reply in sent_to(ToClient, commands)] == [0, 1, 2]
    assert relay.upstream_gone("again") == []


def test_a_request_that_the_server_never_answers_is_given_up_and_the_server_told() -> None:
    relay = Relay()
    ticket = forwarded(relay, call(id=1))
    assert relay.expire(now=299.0, timeout=300.0) == []
    commands = relay.expire(now=300.0, timeout=300.0)
    assert sent_to(ToUpstream, commands)[0]["params"]["requestId"] == ticket
    assert "within 300 s" in sent_to(ToClient, commands)[0]["error"]["message"]
    assert [type(c) for c in relay.from_upstream(answer(ticket, {}))] == [Note]


# ---- what a hostile or broken peer sends


def asked(relay: Relay, id: Any = 9, method: str = "sampling/createMessage") -> int:
    """A question of the server's, being judged."""
    (judge,) = relay.from_upstream(request(id, method))
    assert isinstance(judge, Judge)
    return judge.ticket


@pytest.mark.parametrize("subscription", ["1" * 5000, "١٢", "-1", True, 1.5, None, [], {"a": 1}])
def test_a_subscription_id_that_is_none_is_dropped(subscription: Any) -> None:
    note = {"method": "notifications/message", "params": {"_meta": {SUBSCRIPTION_KEY: subscription}}}
    assert [type(c) for c in Relay().from_upstream(line({"jsonrpc": "2.0", **note}))] == [Note]


def test_a_question_withdrawn_while_it_is_judged_reaches_nobody_and_frees_its_id() -> None:
    relay = Relay()
    first = asked(relay)
    assert [type(c) for c in relay.from_upstream(cancelled(9))] == [Note]
    second = asked(relay, method="ping")
    assert relay.decided(first, DENIAL, now=0.0) == [Settle(first, "withdrawn")]
    assert len(sent_to(ToClient, relay.decided(second, None, now=0.0))) == 1
    assert settled(relay.from_client(answer(9, {}))) == [(second, "ok")]


def test_a_question_that_the_client_never_answers_is_answered_for_it() -> None:
    relay = Relay()
    ticket = asked(relay)
    relay.decided(ticket, None, now=0.0)
    assert relay.expire(now=600.0, timeout=300.0) == []
    commands = relay.expire(now=4000.0, timeout=300.0)
    assert settled(commands) == [(ticket, "timeout")]
    assert sent_to(ToUpstream, commands)[0]["id"] == 9


def test_questions_beyond_the_bound_are_refused_with_an_answer() -> None:
    relay = Relay()
    for number in range(wire.MAX_PENDING):
        asked(relay, id=number)
    (refusal,) = sent_to(ToUpstream, relay.from_upstream(request("more", "ping")))
    assert (refusal["id"], refusal["error"]["code"]) == ("more", DENIED_CODE)


@pytest.mark.parametrize(("id", "method"), [("x" * 2000, "ping"), (1, "m" * 300), (2**60, "ping"), (None, "ping")])
def test_a_server_message_out_of_bounds_is_dropped(id: Any, method: str) -> None:
    assert [type(c) for c in Relay().from_upstream(request(id, method))] == [Note]


def test_a_server_that_calls_a_tool_is_told_that_there_are_none() -> None:
    commands = Relay().from_upstream(request("s", "tools/call", name="a"))
    (refusal,) = sent_to(ToUpstream, commands)
    assert (refusal["id"], refusal["error"]["code"]) == ("s", -32601)
    assert not sent_to(ToClient, commands)


def test_a_call_is_given_time_while_the_server_reports_progress_or_waits_for_the_client() -> None:
    relay = Relay()
    ticket = forwarded(relay, call(id=1))
    relay.from_upstream(line({"jsonrpc": "2.0", "method": "notifications/progress", "params": {"progressToken": 1}}))
    assert relay.expire(now=299.0, timeout=300.0) == []
    question = asked(relay)
    relay.decided(question, None, now=299.0)
    assert relay.expire(now=500.0, timeout=300.0) == []
    relay.from_client(answer(9, {}))
    assert relay.expire(now=700.0, timeout=300.0) == []
    assert settled(relay.expire(now=801.0, timeout=300.0)) == [(ticket, "timeout")]


def test_progress_does_not_keep_a_call_for_ever() -> None:
    relay = Relay()
    ticket = forwarded(relay, call(id=1))
    progress = line({"jsonrpc": "2.0", "method": "notifications/progress", "params": {"progressToken": 1}})
    day, ended = 86_400, []
    for minute in range(0, day + 600, 60):
        relay.from_upstream(progress)
        ended += [(minute, one) for one in settled(relay.expire(now=float(minute), timeout=300.0))]
    assert ended == [(day + 240, (ticket, "timeout"))]


def test_a_list_that_changes_while_it_is_fetched_is_fetched_again() -> None:
    relay = Relay()
    (page,) = sent_to(ToUpstream, relay.fetch_tools({}, now=0.0))
    relay.from_upstream(line({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"}))
    (again,) = sent_to(ToUpstream, relay.from_upstream(answer(page["id"], tools("old"))))
    assert relay.from_upstream(answer(again["id"], tools("new"))) == [ToolsKnown()]
    assert relay.catalogue.lookup("old") is NO_TOOL


def test_an_older_answer_does_not_overwrite_newer_schemas() -> None:
    relay = Relay()
    late = forwarded(relay, request(1, "tools/list"))
    relay.from_upstream(line({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"}))
    (page,) = sent_to(ToUpstream, relay.fetch_tools({}, now=0.0))
    relay.from_upstream(answer(page["id"], {"tools": [{"name": "a", "inputSchema": {"required": ["new"]}}]}))
    relay.from_upstream(answer(late, {"tools": [{"name": "a", "inputSchema": {"required": []}}]}))
    assert relay.catalogue.lookup("a").schema == {"required": ["new"]}  # type: ignore[union-attr]


def test_a_list_of_huge_pages_is_given_up() -> None:
    relay = Relay()
    (page,) = sent_to(ToUpstream, relay.fetch_tools({}, now=0.0))
    filler = "x" * (8 * 1024 * 1024)
    for _ in range(20):
        commands = relay.from_upstream(answer(page["id"], tools("a", nextCursor="more", filler=filler)))
        if isinstance(commands[0], ToolsKnown):
            assert commands[0].problem is not None
            return
        (page,) = sent_to(ToUpstream, commands)
    pytest.fail("160 MB of one list were read")


def test_what_waits_to_be_judged_is_bounded() -> None:
    relay = Relay()
    big = "x" * (8 * 1024 * 1024)
    judged_calls = [relay.from_client(call(id=number, pad=big)) for number in range(9)]
    kinds = [type(commands[-1]) for commands in judged_calls]
    assert kinds == [Judge] * 7 + [ToClient] * 2


def test_a_cancelled_subscription_does_not_hold_its_place_for_ever() -> None:
    relay = Relay()
    ticket = forwarded(relay, request("sub", "subscriptions/listen", _meta=MODERN))
    relay.from_client(cancelled("sub"))
    assert settled(relay.expire(now=100.0, timeout=300.0)) == [(ticket, "cancelled")]


def test_an_answer_with_a_null_error_beside_its_result_is_a_result() -> None:
    relay = Relay()
    ticket = forwarded(relay, call())
    data = line({"jsonrpc": "2.0", "id": ticket, "result": {"content": []}, "error": None})
    assert settled(relay.from_upstream(data)) == [(ticket, "ok")]


def test_a_refused_request_with_another_id_inside_is_answered_under_its_own() -> None:
    data = request(1, "tools/call", name="a", arguments={"id": 2**53 + 1})
    assert sent_to(ToClient, Relay().from_client(data))[0]["id"] == 1


@pytest.mark.parametrize("method", ["Tools/Call", "tools/call ", "ｔｏｏｌｓ/call", "TOOLS/CALL"])
def test_a_look_alike_of_tools_call_is_refused(method: str) -> None:
    assert [type(c) for c in Relay().from_client(request(1, method, name="a"))] == [Note, ToClient]
