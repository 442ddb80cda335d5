"""What `/metrics` says of real conversations, as the library of Prometheus reads it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from prometheus_client.parser import text_string_to_metric_families

from intercept_py.metrics import Metrics, ServerMetrics
from intercept_py.model import Caller, Finding, ToolCall
from intercept_py.observing import Judged
from intercept_py.policy import loader
from intercept_py.policy.rules import Policy
from intercept_py.state import open_state
from intercept_py.state.limit_use import Store
from intercept_py.wire.messages import Incoming
from tests.conversation import Conversation, call

POLICY = """
tools:
  cancel_run: {rules: [{name: two, rate_limit: {max: 2, window: 60}}]}
  purge: {rules: [{name: never, action: deny}]}
  watched: {rules: [{name: looks, action: deny, mode: shadow}]}
"""
DOCUMENT = Path(__file__).resolve().parent.parent / "docs" / "operations.md"


def policy(text: str = POLICY) -> Policy:
    return loader.load(text.encode(), "policy.yaml")


@pytest.fixture
def metrics() -> Metrics:
    return Metrics("1.2.3")


@pytest.fixture
def server(metrics: Metrics) -> ServerMetrics:
    return metrics.watch("test", policy())


def samples(metrics: Metrics) -> dict[str, dict[tuple[str, ...], float]]:
    """Name to label values, sorted by the names of the labels, to value."""
    found: dict[str, dict[tuple[str, ...], float]] = {}
    for family in text_string_to_metric_families(metrics.render().decode()):
        for sample in family.samples:
            series = found.setdefault(sample.name, {})
            labels = tuple(sample.labels[name] for name in sorted(sample.labels))
            assert labels not in series, f"{sample.name} comes twice"
            series[labels] = sample.value
    return found


def decisions(metrics: Metrics) -> dict[tuple[str, ...], float]:
    """Code, effect, method, rule, tool."""
    found = samples(metrics)["intercept_decisions_total"]
    return {(*labels[:4], labels[5]): value for labels, value in found.items()}


def list_tools(talk: Conversation, *names: str) -> None:
    """The client asks for the tools, and the server lists these."""
    talk.say({"jsonrpc": "2.0", "id": "list", "method": "tools/list"})
    talk.answer(talk.upstream.pop(), {"tools": [{"name": name, "inputSchema": {"type": "object"}} for name in names]})
    talk.session.rest()


def test_decisions_are_counted_by_tool_rule_and_effect(tmp_path: Path, metrics: Metrics, server: ServerMetrics) -> None:
    talk = Conversation(POLICY, tmp_path, observer=server)
    talk.say(call(1), call(2), call(3), call(4, "purge"), call(5, "invented"), {"jsonrpc": "2.0", "method": "x/y"})
    assert decisions(metrics) == {
        ("", "allow", "tools/call", "", "cancel_run"): 2,
        ("limit_reached", "deny", "tools/call", "two", "cancel_run"): 1,
        ("denied_by_rule", "deny", "tools/call", "never", "purge"): 1,
        ("", "allow", "tools/call", "", "other"): 1,
        ("", "allow", "other", "", ""): 1,
    }
    found = samples(metrics)
    assert found["intercept_decision_duration_seconds_count"] == {("test",): 6}
    assert found["intercept_requests_in_flight"] == {("test",): 3}


def test_denials_by_watched_rules_are_counted_apart(tmp_path: Path, metrics: Metrics, server: ServerMetrics) -> None:
    Conversation(POLICY, tmp_path, observer=server).say(call(1, "watched"))
    assert decisions(metrics) == {("", "allow", "tools/call", "", "watched"): 1}
    shadowed = samples(metrics)["intercept_shadow_denials_total"]
    assert shadowed == {("denied_by_rule", "tools/call", "looks", "test", "watched"): 1}


def test_calls_that_go_on_uncounted_are_counted_as_such(metrics: Metrics, server: ServerMetrics) -> None:
    message = Incoming({}, 1, "tools/call", {}, False, b"")
    judged = Judged(message, ToolCall("cancel_run", {}), Caller(), "x-1", 0.001, 0.0, uncounted=True)
    server.decided(judged)
    server.decided(replace(judged, finding=Finding("audit_unavailable", "no")))
    assert samples(metrics)["intercept_uncounted_calls_total"] == {("test",): 1}


def test_ends_are_timed_by_outcome_and_errors_counted_by_kind(
    tmp_path: Path, metrics: Metrics, server: ServerMetrics
) -> None:
    talk = Conversation(POLICY, tmp_path, observer=server)
    talk.say(call(1, "get_a"), call(2, "get_a"), call(3, "get_a"), call(4, "get_a"))
    ok, bad, wrong, _ = [request["id"] for request in talk.calls()]
    talk.now = 0.2
    talk.reply(
        {"jsonrpc": "2.0", "id": ok, "result": {"content": []}},
        {"jsonrpc": "2.0", "id": bad, "error": {"code": 7, "message": "secret"}},
        {"jsonrpc": "2.0", "id": wrong, "result": {"content": [], "isError": True}},
    )
    talk.end()
    found = samples(metrics)
    waited = found["intercept_upstream_duration_seconds_count"]
    assert {labels[1]: value for labels, value in waited.items()} == {
        "ok": 1, "error": 1, "tool_error": 1, "upstream_gone": 1
    }  # fmt: skip
    assert found["intercept_upstream_duration_seconds_sum"]["tools/call", "ok", "test", "other"] == pytest.approx(0.2)
    errors = found["intercept_upstream_errors_total"]
    assert errors == {("error", "test"): 1, ("tool_error", "test"): 1, ("upstream_gone", "test"): 1}
    assert found["intercept_requests_in_flight"] == {("test",): 0}


def test_a_server_that_takes_too_long_is_an_error_of_its_own_kind(
    tmp_path: Path, metrics: Metrics, server: ServerMetrics
) -> None:
    talk = Conversation(POLICY, tmp_path, observer=server)
    talk.say(call(1))
    talk.now = 301.0
    talk.session.tick()
    talk.session.rest()
    assert samples(metrics)["intercept_upstream_errors_total"] == {("timeout", "test"): 1}


HOSTILE = ['a"} 1\nintercept_up 1 #', "back\\slash", "\x1b[2J", "\u202edenied", "é" * 300, "{}", ""]


def test_names_that_a_server_lists_are_labels_that_break_nothing(
    tmp_path: Path, metrics: Metrics, server: ServerMetrics
) -> None:
    talk = Conversation(POLICY, tmp_path, observer=server)
    list_tools(talk, *HOSTILE)
    talk.say(*(call(number, name) for number, name in enumerate(HOSTILE, 10)))
    found = samples(metrics)
    assert "intercept_up" not in found
    tools = {labels[4] for labels in decisions(metrics)}
    assert {'a"} 1\\nintercept_up 1 #', "back\\slash", "\\x1b[2J", "\\u202edenied", "é" * 127 + "…"} <= tools


def test_what_agents_and_servers_invent_makes_a_bounded_number_of_series(
    tmp_path: Path, metrics: Metrics, server: ServerMetrics
) -> None:
    talk = Conversation(POLICY, tmp_path, observer=server)
    before = len(metrics.render().splitlines())
    talk.say(*(call(number, f"invented_{number}") for number in range(200)))
    talk.say(*({"jsonrpc": "2.0", "method": f"notifications/n{number}"} for number in range(200)))
    for number, request in enumerate(talk.calls()):
        talk.reply({"jsonrpc": "2.0", "id": request["id"], "error": {"code": number, "message": "x"}})
    talk.end()
    assert len(metrics.render().splitlines()) - before < 60


def test_no_argument_reaches_a_metric(tmp_path: Path, metrics: Metrics, server: ServerMetrics) -> None:
    talk = Conversation(POLICY, tmp_path, observer=server)
    secret: dict[str, Any] = {"runId": "s3cr3t", "s3cr3t": 1, "amount": 5}
    talk.say(call(1, "cancel_run", secret), call(2, "free", secret), call("s3cr3t", "purge", secret))
    talk.answer(talk.calls()[0], {"content": [{"type": "text", "text": "s3cr3t"}], "isError": True})
    talk.end()
    assert b"s3cr3t" not in metrics.render()


def test_a_reload_shows_the_revision_in_force_and_counts(metrics: Metrics, server: ServerMetrics) -> None:
    other = policy("tools: {brand_new: {}}")
    server.reloaded(None)
    server.reloaded(other)
    found = samples(metrics)
    assert found["intercept_policy_info"] == {(other.revision, "test"): 1}
    assert found["intercept_policy_reloads_total"] == {("accepted", "test"): 1, ("refused", "test"): 1}


def test_failures_are_counted_by_code_and_there_from_the_start(metrics: Metrics, server: ServerMetrics) -> None:
    server.failed("audit_unavailable")
    assert samples(metrics)["intercept_failures_total"] == {
        ("audit_unavailable", "test"): 1,
        ("internal_error", "test"): 0,
        ("state_error", "test"): 0,
        ("state_unavailable", "test"): 0,
    }


def test_sessions_build_and_process_are_told(metrics: Metrics, server: ServerMetrics) -> None:
    sessions = [1, 2, 3]
    server.count_sessions(lambda: len(sessions))
    found = samples(metrics)
    assert found["intercept_sessions_open"] == {("test",): 3}
    assert [labels[1] for labels in found["intercept_build_info"]] == ["1.2.3"]
    assert found["process_open_fds"][()] > 0


def test_servers_are_told_apart(metrics: Metrics, server: ServerMetrics, tmp_path: Path) -> None:
    other = metrics.watch("other", policy())
    Conversation(POLICY, tmp_path, observer=other).say(call(1))
    found = samples(metrics)
    assert [labels[4] for labels in found["intercept_decisions_total"]] == ["other"]
    assert found["intercept_requests_in_flight"] == {("test",): 0, ("other",): 1}


# -- limits ------------------------------------------------------------------------------------------------------------


LIMITED = """
tools:
  cancel_run: {rules: [{name: all, rate_limit: {max: 3, window: 60, per: global}}]}
  "get_*": {rules: [{name: gets, rate_limit: {max: 5, window: 3600, per: tool}}]}
  refund:
    rules:
      - name: spent
        state: {counter: amount, window: day, increment_from: args.amount}
        conditions:
          - {path: state.refund.amount, op: lt, value: 100}
          - {path: state.refund.amount, op: lte, value: 200}
  mine: {rules: [{name: own, rate_limit: {max: 9, window: 60, per: [session, tool]}}]}
"""


def limits(metrics: Metrics, name: str) -> dict[tuple[str, ...], float]:
    """Counter, entry, rule, tool, window to value."""
    found = samples(metrics).get(f"intercept_limit_{name}", {})
    return {(*labels[:3], *labels[5:]): value for labels, value in found.items()}


def test_the_use_of_limits_that_all_callers_share_is_shown(tmp_path: Path, metrics: Metrics) -> None:
    server, state = metrics.watch("shown", policy(LIMITED)), open_state("memory://")
    server.read_limits("test", Store("memory://", "", state))
    talk = Conversation(LIMITED, tmp_path, state=state, observer=server)
    list_tools(talk, "get_a", "get_b")
    talk.say(call(1, "refund", {"amount": 12.5}), call(2), call(3, "get_a"), call(4, "get_a"), call(5, "mine"))
    assert limits(metrics, "used") == {
        ("", "cancel_run", "all", "", "60s"): 1,
        ("", "get_*", "gets", "get_a", "3600s"): 2,
        ("", "get_*", "gets", "get_b", "3600s"): 0,
        ("amount", "refund", "spent", "", "day"): 12.5,
    }
    assert limits(metrics, "max") == {
        ("", "cancel_run", "all", "", "60s"): 3,
        ("", "get_*", "gets", "get_a", "3600s"): 5,
        ("", "get_*", "gets", "get_b", "3600s"): 5,
        ("amount", "refund", "spent", "", "day"): 100,
    }
    assert samples(metrics)["intercept_limits_readable"] == {("shown",): 1}


def test_a_store_that_cannot_be_read_is_said_to_be_so_and_all_else_is_told(metrics: Metrics) -> None:
    server, nowhere = metrics.watch("shown", policy(LIMITED)), "redis://127.0.0.1:1/0"
    server.read_limits("test", Store(nowhere, "", open_state(nowhere)))
    found = samples(metrics)
    assert found["intercept_limits_readable"] == {("shown",): 0}
    assert "intercept_limit_used" not in found
    assert "intercept_build_info" in found
    metrics.close()


# -- the document, and who pays ----------------------------------------------------------------------------------------


def test_every_metric_is_documented_and_nothing_else(tmp_path: Path, metrics: Metrics) -> None:
    told = {name for name in re.findall(r"intercept_[a-z_]+", metrics.render().decode()) if "_info" not in name}
    documented = set(re.findall(r"`(intercept_[a-z_]+)", DOCUMENT.read_text()))
    families = {re.sub("_(bucket|count|sum)$", "", name) for name in told}
    assert families | {"intercept_build_info", "intercept_policy_info"} == documented


def test_a_proxy_without_http_imports_none_of_this() -> None:
    program = """
import sys
import intercept_py.cli.run, intercept_py.cli.session
print([name for name in sys.modules if name.startswith(("prometheus_client", "opentelemetry", "intercept_py.metrics"))])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout.strip() == "[]"
