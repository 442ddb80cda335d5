"""What a collector of OpenTelemetry receives of real conversations, and what becomes of these if it is broken.

Names and values are those of the semantic conventions for MCP (see `telemetry.otel`); what is ours says `intercept.`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from intercept_py.log import Log
from intercept_py.observing import Observer, Observers
from intercept_py.policy import loader
from intercept_py.telemetry import Telemetry, TelemetryError, open_telemetry
from intercept_py.wire.messages import Arrival
from tests.conversation import Conversation, Message, call
from tests.support.otlp_collector import Collector, collecting, values

POLICY = """
methods: {"resources/*": deny}
tools:
  cancel_run: {rules: [{name: two, rate_limit: {max: 2, window: 60}}]}
  watched: {rules: [{name: looks, action: deny, mode: shadow}]}
"""
TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
TRACEPARENT = f"00-{TRACE}-{PARENT}-01"
OTHER_TRACE, OTHER_PARENT = "a" * 32, "b" * 16
VERSION = "io.modelcontextprotocol/protocolVersion"


class Lines:
    """A log, and the lines in it. Its pipe stays open: a late thread would write into what has its number next."""

    def __init__(self) -> None:
        self._read, self._write = os.pipe()
        os.set_blocking(self._read, False)
        self.log = Log("debug", self._write)

    def __call__(self) -> list[str]:
        with suppress(BlockingIOError):
            return os.read(self._read, 1 << 20).decode().splitlines()
        return []


@pytest.fixture
def lines() -> Lines:
    return Lines()


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    with collecting() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        yield collector


class Sent:
    """A conversation that is traced. `spans` ends it and gives what the collector received."""

    def __init__(self, telemetry: Telemetry, observer: Observer, collector: Collector, folder: Path) -> None:
        self.talk = Conversation(POLICY, folder, observer=observer)
        self.collector = collector
        self._telemetry = telemetry

    def spans(self) -> list[Span]:
        self.talk.session.rest()
        self._telemetry.close()
        return self.collector.spans()

    def span(self) -> Span:
        (span,) = self.spans()
        return span


@pytest.fixture
def sent(collector: Collector, lines: Lines, tmp_path: Path) -> Iterator[Sent]:
    telemetry = started(lines)
    policy = loader.load(POLICY.encode(), "policy.yaml")
    yield Sent(telemetry, telemetry.watch("github", policy, "tcp"), collector, tmp_path)
    telemetry.close()


def started(lines: Lines) -> Telemetry:
    telemetry = open_telemetry(os.environ, "1.2.3", lines.log)
    assert telemetry is not None
    return telemetry


def request(id: Any, method: str, **params: Any) -> Message:
    return {"jsonrpc": "2.0", "id": id, "method": method, "params": params}


def test_a_call_is_a_span_of_the_servers_kind(sent: Sent) -> None:
    before = time.time_ns()
    sent.talk.say(call("a-1", _meta={VERSION: "2026-07-28"}))
    sent.talk.answer(sent.talk.calls()[0])
    span = sent.span()
    assert (span.name, span.kind) == ("tools/call cancel_run", Span.SPAN_KIND_SERVER)
    assert span.status.code == Status.STATUS_CODE_UNSET
    assert before - 1e9 < span.start_time_unix_nano <= span.end_time_unix_nano <= time.time_ns()
    assert values(span.attributes) == {
        "mcp.method.name": "tools/call",
        "gen_ai.operation.name": "execute_tool",
        "gen_ai.tool.name": "cancel_run",
        "jsonrpc.request.id": "a-1",
        "mcp.protocol.version": "2026-07-28",
        "mcp.session.id": "0123456789abcdef",
        "network.transport": "tcp",
        "network.protocol.name": "http",
        "intercept.server": "github",
        "intercept.decision": "allow",
        "intercept.decision.id": "0123456789abcdef-1",
    }


def test_who_sends_is_named_and_may_be_named_otherwise(
    collector: Collector, lines: Lines, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("intercept-py", "mine"):
        collector.bodies.clear()
        telemetry = started(lines)
        observer = telemetry.watch("s", loader.load(b"tools: {}", "p.yaml"), "pipe")
        (tmp_path / name).mkdir()
        Sent(telemetry, observer, collector, tmp_path / name).talk.say(call(1, "watched"), request(2, "resources/list"))
        telemetry.close()
        assert {key: collector.resource()[key] for key in ("service.name", "service.version")} == {
            "service.name": name,
            "service.version": "1.2.3",
        }
        monkeypatch.setenv("OTEL_SERVICE_NAME", "mine")


# -- parents -----------------------------------------------------------------------------------------------------------


def test_the_parent_is_what_the_message_names_and_the_message_stays_as_it_is(sent: Sent) -> None:
    meta = {"traceparent": TRACEPARENT, "tracestate": "rojo=1,congo=2", "baggage": "user=alice"}
    sent.talk.say(call(1, _meta=meta))
    (forwarded,) = sent.talk.calls()
    assert forwarded["params"]["_meta"] == meta
    sent.talk.answer(forwarded)
    span = sent.span()
    assert (span.trace_id.hex(), span.parent_span_id.hex()) == (TRACE, PARENT)
    assert span.trace_state == "rojo=1,congo=2"


@pytest.fixture
def _arrival(sent: Sent) -> None:
    """Messages come in an HTTP request with headers."""
    sent.talk.arrival = Arrival(f"00-{OTHER_TRACE}-{OTHER_PARENT}-01", "x=1", "2025-11-25")


@pytest.mark.usefixtures("_arrival")
def test_without_one_in_the_message_the_parent_is_what_the_http_request_names(sent: Sent) -> None:
    sent.talk.say(request(1, "resources/list"))
    span = sent.span()
    assert (span.trace_id.hex(), span.parent_span_id.hex()) == (OTHER_TRACE, OTHER_PARENT)
    assert values(span.attributes)["mcp.protocol.version"] == "2025-11-25"


@pytest.mark.usefixtures("_arrival")
def test_what_the_http_request_names_is_a_link_where_the_message_names_a_parent(sent: Sent) -> None:
    sent.talk.say(request(1, "resources/list", _meta={"traceparent": TRACEPARENT}))
    span = sent.span()
    assert span.parent_span_id.hex() == PARENT
    assert [(link.trace_id.hex(), link.span_id.hex()) for link in span.links] == [(OTHER_TRACE, OTHER_PARENT)]


STRANGE = [
    "", "x", 5, None, [TRACEPARENT], {}, True, f"00-{'0' * 32}-{PARENT}-01", f"ff-{TRACE}-{PARENT}-01",
    f"00-{TRACE.upper()}-{PARENT}-01", f"{TRACEPARENT}-more", TRACEPARENT * 1000, f"\n{TRACEPARENT}",
]  # fmt: skip


@pytest.mark.parametrize("traceparent", STRANGE)
def test_a_trace_context_that_is_none_makes_a_root(sent: Sent, traceparent: Any) -> None:
    sent.talk.say(call(1, _meta={"traceparent": traceparent, "tracestate": 5}))
    sent.talk.answer(sent.talk.calls()[0])
    span = sent.span()
    assert span.parent_span_id == b""


@pytest.mark.parametrize("tracestate", [5, None, "=", "x" * 5000, ["a=1"], "a=1,a=2,\n"])
def test_a_bad_tracestate_costs_the_parent_nothing(sent: Sent, tracestate: Any) -> None:
    sent.talk.say(call(1, _meta={"traceparent": TRACEPARENT, "tracestate": tracestate}))
    sent.talk.answer(sent.talk.calls()[0])
    assert sent.span().parent_span_id.hex() == PARENT


def test_a_trace_that_its_sender_does_not_keep_is_not_kept_here(sent: Sent) -> None:
    sent.talk.say(call(1, _meta={"traceparent": f"00-{TRACE}-{PARENT}-00"}))
    sent.talk.answer(sent.talk.calls()[0])
    assert sent.spans() == []


# -- ends --------------------------------------------------------------------------------------------------------------


def failure(span: Span) -> dict[str, str]:
    """What a span says of a failure."""
    assert span.status.code == Status.STATUS_CODE_ERROR
    told = ("error.type", "rpc.response.status_code", "intercept.decision", "intercept.code", "intercept.rule")
    return {key: value for key, value in values(span.attributes).items() if key in told}


def test_a_denied_call_is_the_tool_error_that_its_client_sees_with_our_reason(sent: Sent) -> None:
    sent.talk.say(call(1), call(2), call(3))
    (span,) = sent.spans()
    assert failure(span) == {
        "error.type": "tool_error",
        "intercept.decision": "deny",
        "intercept.code": "limit_reached",
        "intercept.rule": "two",
    }


def test_a_denied_method_is_the_error_that_its_client_sees(sent: Sent) -> None:
    sent.talk.say(request(1, "resources/list"))
    assert failure(sent.span()) == {
        "error.type": "-31403",
        "rpc.response.status_code": "-31403",
        "intercept.decision": "deny",
        "intercept.code": "method_denied",
        "intercept.rule": "resources/*",
    }


def test_what_a_watched_rule_would_deny_is_told(sent: Sent) -> None:
    sent.talk.say(call(1, "watched"))
    sent.talk.end()
    assert values(sent.span().attributes)["intercept.shadow.rule"] == "looks"


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        ({"result": {"content": [], "isError": True}}, {"error.type": "tool_error"}),
        (
            {"error": {"code": -32602, "message": "x"}},
            {"error.type": "-32602", "rpc.response.status_code": "-32602"},
        ),
        ({"error": {"code": 12345, "message": "x"}}, {"error.type": "12345", "rpc.response.status_code": "12345"}),
    ],
)
def test_what_the_server_answers_is_told(sent: Sent, answer: Message, told: dict[str, str]) -> None:
    sent.talk.say(call(1))
    sent.talk.reply({"jsonrpc": "2.0", "id": sent.talk.calls()[0]["id"], **answer})
    assert failure(sent.span()) == {**told, "intercept.decision": "allow"}


def test_a_server_that_ends_is_told(sent: Sent) -> None:
    sent.talk.say(call(1))
    sent.talk.end()
    assert failure(sent.span())["error.type"] == "upstream_gone"


def test_a_name_that_an_agent_invents_names_no_span(sent: Sent) -> None:
    sent.talk.say(call(1, "x" * 4000), request(2, "made/up"))
    sent.talk.end()
    spans = {span.name: values(span.attributes) for span in sent.spans()}
    assert set(spans) == {"tools/call", "other"}
    assert spans["tools/call"]["gen_ai.tool.name"] == "x" * 127 + "…"
    assert spans["other"]["mcp.method.name"] == "made/up"


def test_a_reload_teaches_the_names_of_the_new_policy(collector: Collector, lines: Lines, tmp_path: Path) -> None:
    telemetry = started(lines)
    observer = Observers(telemetry.watch("s", loader.load(b"tools: {}", "p.yaml"), "tcp"))
    sent = Sent(telemetry, observer, collector, tmp_path)
    for policy in (None, loader.load(b"tools: {brand_new: {}}", "p.yaml")):
        observer.reloaded(policy)
        sent.talk.say(call(str(policy is None), "brand_new"))
    sent.talk.end()
    assert [span.name for span in sent.spans()] == ["tools/call", "tools/call brand_new"]


def test_notifications_make_no_spans(sent: Sent) -> None:
    sent.talk.say({"jsonrpc": "2.0", "method": "notifications/initialized"})
    assert sent.spans() == []


def test_no_argument_and_no_result_is_sent(sent: Sent) -> None:
    secret = {"runId": "s3cr3t", "s3cr3t": 1}
    sent.talk.say(
        call(1, "cancel_run", secret),
        request(2, "prompts/get", name="greet", arguments=secret),
        request(3, "resources/read", uri="file:///s3cr3t"),
        request(4, "completion/complete", argument={"value": "s3cr3t"}),
    )
    sent.talk.answer(sent.talk.calls()[0], {"content": [{"type": "text", "text": "s3cr3t"}], "isError": True})
    sent.talk.end()
    assert {span.name for span in sent.spans()} == {
        "tools/call cancel_run", "prompts/get", "resources/read", "completion/complete"
    }  # fmt: skip
    assert not any(b"s3cr3t" in body for _, body in sent.collector.bodies)


# -- metrics -----------------------------------------------------------------------------------------------------------


def test_durations_are_a_histogram_with_the_buckets_of_the_conventions(sent: Sent) -> None:
    sent.talk.say(call(1), call(2), request(3, "made/up"))
    sent.talk.now = 3.0
    sent.talk.reply({"jsonrpc": "2.0", "id": sent.talk.calls()[0]["id"], "result": {"content": []}})
    sent.talk.reply({"jsonrpc": "2.0", "id": sent.talk.calls()[1]["id"], "error": {"code": 777, "message": "x"}})
    sent.talk.reply({"jsonrpc": "2.0", "id": sent.talk.upstream[2]["id"], "result": {}})
    sent.spans()
    (metric,) = sent.collector.metrics()
    assert (metric.name, metric.unit) == ("mcp.server.operation.duration", "s")
    points = {
        (told["mcp.method.name"], told.get("gen_ai.tool.name"), told.get("error.type")): point.sum
        for point in metric.histogram.data_points
        for told in [values(point.attributes)]
    }
    assert points == {
        ("tools/call", "cancel_run", None): 3.0,
        ("tools/call", "cancel_run", "_OTHER"): 3.0,
        ("other", None, None): 3.0,
    }
    bounds = metric.histogram.data_points[0].explicit_bounds
    assert list(bounds) == [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 120, 300]


# -- broken collectors -------------------------------------------------------------------------------------------------


def calls_go_on(telemetry: Telemetry, folder: Path, calls: int = 20) -> None:
    """So many calls, each answered."""
    observer = telemetry.watch("s", loader.load(b"tools: {}", "p.yaml"), "tcp")
    talk = Conversation("tools: {}", folder, observer=observer)
    for number in range(calls):
        talk.say(call(number))
        talk.answer(talk.upstream[-1])
        talk.session.rest()
        assert talk.answers(number)


def test_a_collector_that_never_answers_stalls_nothing_and_the_end_does_not_wait_for_it(
    collector: Collector, lines: Lines, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "16")
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "8")
    collector.open.clear()
    telemetry = started(lines)
    calls_go_on(telemetry, tmp_path, calls=200)
    assert collector.asked.wait(30)
    began = time.monotonic()
    telemetry.close()
    assert time.monotonic() - began < 15
    assert "intercept-py: warn: telemetry: what could not be sent within 3 s is lost" in lines()


@pytest.mark.parametrize("status", [400, 401, 500, 503])
def test_a_collector_that_refuses_harms_no_call_and_is_said_in_plain_lines(
    collector: Collector, lines: Lines, tmp_path: Path, status: int
) -> None:
    collector.status = status
    telemetry = started(lines)
    calls_go_on(telemetry, tmp_path)
    telemetry.close()
    said = lines()
    assert said
    assert all(line.startswith("intercept-py: warn: telemetry: ") for line in said)
    assert "Traceback" not in "".join(said)


def test_what_is_said_holds_no_header_and_no_password(
    lines: Lines, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://user:s3cr3t@127.0.0.1:1")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "s3cr3t,authorization=s3cr3t\x01\x02,x=s3cr3t%0a")
    telemetry = started(lines)
    calls_go_on(telemetry, tmp_path)
    telemetry.close()
    said = "\n".join(lines())
    assert "Failed to export" in said or "Transient error" in said
    assert "s3cr3t" not in said


def test_settings_that_the_library_refuses_are_one_clear_fault(lines: Lines, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setenv("OTEL_METRIC_EXPORT_INTERVAL", "-1")
    with pytest.raises(TelemetryError, match=r"^OpenTelemetry cannot be started \(ValueError\): look at the variables"):
        started(lines)
