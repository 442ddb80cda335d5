"""One session with a real policy, real counters and a real audit file, fed by hand."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from intercept_py.policy import loader, pdp
from tests.conversation import LIMIT, Conversation, call

LIMITED = """
hide: [purge]
tools:
  cancel_run:
    rules:
      - name: cancels
        rate_limit: {max: 2, window: 60}
        validate: {required_args: true}
"""
LISTED = {
    "tools": [
        {"name": "cancel_run", "inputSchema": {"type": "object", "required": ["runId"], "properties": {"runId":
        {"type": "string"}}}}, {"name": "purge", "inputSchema": {"type": "object"}}, {"name": "list_runs",
        "inputSchema": {"type": "object"}},
    ]
}  # fmt: skip


@pytest.fixture
def talk(tmp_path: Path) -> Conversation:
    return Conversation(LIMITED, tmp_path)


def listed(talk: Conversation) -> None:
    """The server answers the proxy's own question."""
    request = talk.upstream.pop()
    assert request["method"] == "tools/list"
    talk.answer(request, LISTED)


def denial(talk: Conversation, id: object) -> str:
    (answer,) = talk.answers(id)
    assert answer["result"]["isError"] is True
    text: str = answer["result"]["content"][0]["text"]
    return text


def test_a_call_that_needs_a_schema_waits_for_the_servers_list_once(talk: Conversation) -> None:
    talk.say(call(1), call(2))
    assert [message["method"] for message in talk.upstream] == ["tools/list"]
    listed(talk)
    assert [message["params"]["name"] for message in talk.calls()] == ["cancel_run", "cancel_run"]
    talk.say(call(3))
    assert "retry in" in denial(talk, 3)


def test_a_modern_call_asks_for_the_list_in_its_own_era(talk: Conversation) -> None:
    meta = {
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {},
        "x": 1,
    }
    talk.say(call(1, _meta=meta))
    asked = talk.upstream[0]["params"]["_meta"]
    assert asked == {key: value for key, value in meta.items() if key != "x"}


def test_calls_are_denied_when_the_list_cannot_be_had(tmp_path: Path) -> None:
    talk = Conversation(LIMITED.replace("hide: [purge]", ""), tmp_path)
    talk.say(call(1))
    request = talk.upstream.pop()
    talk.reply({"jsonrpc": "2.0", "id": request["id"], "error": {"code": -32601, "message": "no"}})
    assert "list of tools" in denial(talk, 1)
    assert talk.calls() == []


def test_a_hidden_tool_is_denied_exactly_like_an_unknown_one(talk: Conversation) -> None:
    talk.say(call(1, "purge"), call(2, "never_existed"))
    listed(talk)
    assert denial(talk, 1).replace("purge", "X") == denial(talk, 2).replace("never_existed", "X")
    (hidden,), (unknown,) = talk.answers(1), talk.answers(2)
    codes = [answer["result"]["_meta"]["dev.intercept-py/decision"]["code"] for answer in (hidden, unknown)]
    assert codes[0] == codes[1]
    assert talk.calls() == []


def test_a_call_cancelled_while_it_waits_is_never_sent_and_not_charged(talk: Conversation) -> None:
    talk.say(call(1))
    talk.say({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 1}})
    listed(talk)
    assert talk.calls() == []
    talk.say(call(2), call(3))
    assert len(talk.calls()) == 2
    assert talk.answers(1) == []


def test_a_call_without_its_required_argument_names_it(talk: Conversation) -> None:
    talk.say(call(1, arguments={}))
    listed(talk)
    assert "`runId`" in denial(talk, 1)


def test_an_argument_that_contradicts_the_servers_schema_is_denied_before_any_rule(talk: Conversation) -> None:
    talk.say(call(1, arguments={"runId": ["run_1"]}))
    listed(talk)
    assert "runId" in denial(talk, 1)
    assert talk.calls() == []


def test_denials_do_not_count(talk: Conversation) -> None:
    talk.say(*(call(number, arguments={}) for number in range(5)))
    listed(talk)
    talk.say(call(10), call(11), call(12))
    assert len(talk.calls()) == 2


def test_an_error_of_the_server_gives_no_charge_back(talk: Conversation) -> None:
    talk.say(call(1))
    listed(talk)
    (sent,) = talk.calls()
    talk.reply({"jsonrpc": "2.0", "id": sent["id"], "error": {"code": -32000, "message": "boom"}})
    talk.say(call(2), call(3))
    assert len(talk.calls()) == 2


def test_every_decision_is_recorded_before_its_call_is_sent_and_every_outcome_after(talk: Conversation) -> None:
    talk.say(call(1), call(2), call(3))
    listed(talk)
    decisions = [record for record in talk.records() if record["event"] == "decision"]
    assert [record["effect"] for record in decisions] == ["allow", "allow", "deny"]
    for request in talk.calls():
        talk.answer(request)
    talk.end()
    outcomes = {record["id"]: record["outcome"] for record in talk.records() if record["event"] == "outcome"}
    assert outcomes == {record["id"]: "ok" for record in decisions if record["effect"] == "allow"}


def test_a_record_never_holds_an_argument_value_by_default(talk: Conversation) -> None:
    talk.say(call(1, arguments={"runId": "run_s3cret"}))
    listed(talk)
    assert "s3cret" not in talk.path.read_text()


def test_an_unknown_method_is_refused_under_default_deny(tmp_path: Path) -> None:
    talk = Conversation("default: deny\n", tmp_path)
    talk.say({"jsonrpc": "2.0", "id": 1, "method": "x/new"}, {"jsonrpc": "2.0", "id": 2, "method": "resources/list"})
    assert [message["method"] for message in talk.upstream] == ["resources/list"]
    assert "error" in talk.answers(1)[0]


def test_methods_are_denied_in_both_directions(tmp_path: Path) -> None:
    talk = Conversation("methods: {'resources/*': deny, sampling/createMessage: deny}\n", tmp_path)
    talk.say({"jsonrpc": "2.0", "id": 1, "method": "resources/read", "params": {"uri": "file:///etc/passwd"}})
    talk.reply({"jsonrpc": "2.0", "id": 9, "method": "sampling/createMessage", "params": {"messages": []}})
    assert "error" in talk.answers(1)[0]
    assert [(message["id"], "error" in message) for message in talk.upstream] == [(9, True)]
    assert [record["effect"] for record in talk.records()] == ["deny", "deny"]


def test_a_shadow_policy_records_the_true_verdict_and_lets_the_call_go_on(tmp_path: Path) -> None:
    talk = Conversation("mode: shadow\ndefault: deny\n", tmp_path)
    talk.say(call(1))
    assert len(talk.calls()) == 1
    (record,) = talk.records()
    assert record["effect"] == "allow"
    assert record["shadowed"][0]["code"] == "unlisted"


def test_a_server_that_does_not_answer_in_time_is_given_up(talk: Conversation) -> None:
    talk.say(call(1, "list_runs"))
    listed(talk)
    talk.now = 301.0
    talk.session.tick()
    talk._deliver()
    assert "within 300 s" in talk.answers(1)[0]["error"]["message"]


def test_a_reload_changes_the_next_decision_and_announces_a_changed_list(tmp_path: Path) -> None:
    from intercept_py.policy import loader

    talk = Conversation("default: allow\n", tmp_path)
    talk.say({"jsonrpc": "2.0", "id": "i", "method": "initialize", "params": {}})
    talk.answer(talk.upstream.pop(), {"capabilities": {"tools": {"listChanged": True}}})
    talk.say(call(1))
    talk.session.replace_policy(loader.load(b"default: deny\nhide: [cancel_run]\n", "p"))
    talk._deliver()
    assert talk.client[-1]["method"] == "notifications/tools/list_changed"
    talk.say({"jsonrpc": "2.0", "id": 2, "method": "tools/list"})
    talk.answer(talk.upstream.pop(), LISTED)
    assert [tool["name"] for tool in talk.answers(2)[0]["result"]["tools"]] == ["purge", "list_runs"]
    talk.say(call(3))
    listed(talk)
    assert len(talk.calls()) == 1
    assert denial(talk, 3)


def test_a_notification_that_may_have_an_effect_is_recorded(tmp_path: Path) -> None:
    talk = Conversation("default: allow\n", tmp_path)
    talk.say({"jsonrpc": "2.0", "method": "x/delete_everything", "params": {"all": True}})
    assert [message["method"] for message in talk.upstream] == ["x/delete_everything"]
    assert [record["method"] for record in talk.records()] == ["x/delete_everything"]


def test_a_result_that_cannot_be_kept_does_not_cost_the_record_or_the_next_call(tmp_path: Path) -> None:
    talk = Conversation("audit: response\n", tmp_path)
    talk.say(call(1))
    talk.reply(b'{"jsonrpc":"2.0","id":%d,"result":{"n":1e400}}' % talk.calls()[0]["id"])
    talk.say(call(2))
    talk.end()
    assert len(talk.calls()) == 2
    outcomes = [record for record in talk.records() if record["event"] == "outcome"]
    assert [record["outcome"] for record in outcomes] == ["ok", "upstream_gone"]
    assert "result_error" in outcomes[0]


def test_what_only_watches_makes_no_call_wait(tmp_path: Path) -> None:
    rule = "tools: {cancel_run: {rules: [{mode: shadow, validate: {required_args: true}}]}}\n"
    for number, policy in enumerate([rule, "mode: shadow\nhide: [x]\n"]):
        folder = tmp_path / str(number)
        folder.mkdir()
        talk = Conversation(policy, folder)
        talk.say(call(1))
        assert len(talk.calls()) == 1


def test_calls_keep_their_order_behind_one_that_waits(talk: Conversation) -> None:
    free = Conversation("tools: {a: {rules: [{validate: {required_args: true}}]}}\n", talk.path.parent)
    free.say(call(1, "a", {"x": 1}), call(2, "b"), call(3, "a"))
    request = free.upstream.pop()
    free.answer(request, {"tools": [{"name": "a", "inputSchema": {"type": "object"}}]})
    assert [message["params"]["name"] for message in free.calls()] == ["a", "b", "a"]


def test_a_glob_over_tools_call_denies_every_call(tmp_path: Path) -> None:
    talk = Conversation("methods: {'tools/*': {action: deny, reason: closed for today}}\n", tmp_path)
    talk.say(call(1))
    assert talk.calls() == []
    assert "closed for today" in denial(talk, 1)


def test_a_bug_while_a_message_is_handled_fails_that_message_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from intercept_py.wire import relay

    talk = Conversation("default: allow\n", tmp_path)
    talk.say(call(1))

    def broken(*_: object) -> None:
        raise KeyError("a bug")

    with monkeypatch.context() as patch:
        patch.setattr(relay.Relay, "_server_asks", broken)
        patch.setattr(relay.Relay, "_client_cancels", broken)
        talk.reply({"jsonrpc": "2.0", "method": "notifications/message"})
        talk.say({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 1}})
    talk.answer(talk.calls()[0])
    assert "result" in talk.answers(1)[0]


def test_at_level_response_the_record_keeps_the_result_whatever_its_spelling(tmp_path: Path) -> None:
    talk = Conversation("audit: response\n", tmp_path)
    talk.say(call(1, arguments={"runId": "run_1"}))
    talk.reply(b'{"jsonrpc":"2.0","id":%d,"result":{ "a":\r [1, null] }}' % talk.calls()[0]["id"])
    talk.end()
    decision, outcome = talk.records()
    assert decision["arguments"] == {"runId": "run_1"}
    assert outcome["result"] == {"a": [1, None]}


def test_a_call_behind_one_that_waits_is_answered_when_the_server_ends(tmp_path: Path) -> None:
    talk = Conversation("tools: {a: {rules: [{validate: {required_args: true}}]}}\n", tmp_path)
    talk.say(call(1, "a"), call(2, "b"))
    talk.end()
    assert [len(talk.answers(number)) for number in (1, 2)] == [1, 1]


OUTCOMES = """
tools:
  cancel_run:
    outcome:
      failure:
        - {path: json.error, op: exists, value: true}
        - {path: structured.cancelled, op: eq, value: false}
"""
NOT_FOUND = {"content": [{"type": "text", "text": '{"error": "Job x not found"}'}], "isError": False}


def outcome_of(talk: Conversation) -> dict[str, object]:
    """What the last record says about how the request ended, without what it always says."""
    talk.session.rest()
    record = talk.records()[-1]
    assert record["event"] == "outcome"
    return {name: record[name] for name in ("outcome", "matched", "unchecked", "result", "code") if name in record}


def test_a_failure_that_the_server_calls_a_success_is_recorded_as_one_and_sent_as_it_came(tmp_path: Path) -> None:
    talk = Conversation(OUTCOMES, tmp_path)
    talk.say(call(1))
    talk.answer(talk.calls()[0], NOT_FOUND)
    assert outcome_of(talk) == {"outcome": "tool_error", "matched": "json.error exists"}
    assert talk.answers(1)[0]["result"] == NOT_FOUND


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        ({"content": [{"type": "text", "text": "{}"}]}, {"outcome": "ok"}),
        ({"content": [], "structuredContent": {"cancelled": True}}, {"outcome": "ok"}),
        ({**NOT_FOUND, "isError": True}, {"outcome": "tool_error"}),
        ("no object", {"outcome": "ok"}),
        ({"content": [{"type": "text", "text": "x" * 2**20}], "structuredContent": {"cancelled": False}},
         {"outcome": "ok", "unchecked": "too_large"}),
    ],
)  # fmt: skip
def test_any_other_result_is_recorded_as_the_server_calls_it(
    result: object, expected: dict[str, object], tmp_path: Path
) -> None:
    talk = Conversation(OUTCOMES, tmp_path)
    talk.say(call(1))
    talk.answer(talk.calls()[0], result)
    assert outcome_of(talk) == expected


def test_a_result_that_cannot_be_decoded_is_recorded_as_not_looked_at(tmp_path: Path) -> None:
    talk = Conversation(OUTCOMES, tmp_path)
    talk.say(call(1))
    talk.reply(b'{"jsonrpc":"2.0","id":%d,"result":{"n":1e400}}' % talk.calls()[0]["id"])
    assert outcome_of(talk) == {"outcome": "ok", "unchecked": "unreadable"}


def test_a_bug_while_a_result_is_looked_at_costs_neither_the_record_nor_the_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from intercept_py.policy import outcomes

    def broken(*_: object) -> None:
        raise KeyError("a bug")

    monkeypatch.setattr(outcomes, "walk", broken)
    talk = Conversation(OUTCOMES, tmp_path)
    talk.say(call(1))
    talk.answer(talk.calls()[0], NOT_FOUND)
    assert outcome_of(talk) == {"outcome": "ok", "unchecked": "internal_error"}
    assert talk.answers(1)[0]["result"] == NOT_FOUND


def test_at_level_response_a_failure_keeps_its_result(tmp_path: Path) -> None:
    talk = Conversation(f"audit: response\n{OUTCOMES}", tmp_path)
    talk.say(call(1))
    talk.answer(talk.calls()[0], NOT_FOUND)
    assert outcome_of(talk) == {"outcome": "tool_error", "matched": "json.error exists", "result": NOT_FOUND}


def test_an_error_of_the_protocol_is_no_result_to_look_at(tmp_path: Path) -> None:
    talk = Conversation(OUTCOMES, tmp_path)
    talk.say(call(1))
    error = {"code": -32000, "message": "no", "content": NOT_FOUND["content"]}
    talk.reply({"jsonrpc": "2.0", "id": talk.calls()[0]["id"], "error": error})
    assert outcome_of(talk) == {"outcome": "error", "code": -32000}


def test_a_result_is_judged_by_the_policy_that_judged_its_call(tmp_path: Path) -> None:
    talk = Conversation(OUTCOMES, tmp_path)
    talk.say(call(1))
    talk.session.replace_policy(loader.load(b"default: allow\n", "policy.yaml"))
    talk.say(call(2))
    talk.session.replace_policy(loader.load(OUTCOMES.encode(), "policy.yaml"))
    for request, expected in zip(talk.calls(), ("tool_error", "ok"), strict=True):
        talk.answer(request, NOT_FOUND)
        assert outcome_of(talk)["outcome"] == expected


def test_records_say_when_the_bytes_came_that_caused_them(tmp_path: Path) -> None:
    talk = Conversation("default: allow", tmp_path)
    talk.say(call(1), call(2))
    talk.say(call(3))
    for request in talk.calls():
        talk.answer(request)
    talk.session.rest()
    first, second, third, *ends = [record["ts"] for record in talk.records()]
    assert first == second < third < ends[0] < ends[1] < ends[2]


def given_up(talk: Conversation) -> None:
    talk.now += 301
    talk.session.tick()


def failed(talk: Conversation) -> None:
    talk.session.failed(talk.calls()[0]["id"], "the connection broke")


def cancelled(talk: Conversation) -> None:
    talk.session.abandon(1)
    failed(talk)


@pytest.mark.parametrize(
    ("happens", "outcome"),
    [(given_up, "timeout"), (failed, "error"), (cancelled, "cancelled"), (Conversation.end, "upstream_gone")],
)
def test_an_end_that_no_message_brings_has_its_own_time(
    happens: Callable[[Conversation], None], outcome: str, tmp_path: Path
) -> None:
    talk = Conversation("default: allow", tmp_path)
    talk.say(call(1))
    happens(talk)
    talk.session.rest()
    decision, end = talk.records()
    assert end["outcome"] == outcome
    assert decision["ts"] < end["ts"]


def test_an_end_keeps_its_time_until_it_is_recorded(tmp_path: Path) -> None:
    talk = Conversation("default: allow", tmp_path)
    talk.say(call(1))
    request = talk.calls()[0]
    answer = {"jsonrpc": "2.0", "id": request["id"], "result": {}}
    talk.session.from_upstream([json.dumps(answer).encode()], LIMIT)
    talk.session.from_client([json.dumps(call(2)).encode()], LIMIT)
    talk.session.rest()
    first, second, end = talk.records()
    assert first["ts"] < end["ts"] < second["ts"]


def test_how_long_a_call_took_is_counted_from_its_decision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    talk, decide = Conversation("default: allow", tmp_path), pdp.decide

    def slowly(*question: Any) -> Any:
        talk.now += 0.5
        return decide(*question)

    monkeypatch.setattr(pdp, "decide", slowly)
    talk.say(call(1))
    talk.now += 0.25
    talk.answer(*talk.calls())
    talk.session.rest()
    assert [record["ms"] for record in talk.records() if record["event"] == "outcome"] == [250.0]
