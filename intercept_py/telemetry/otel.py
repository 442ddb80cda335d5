"""Traces and metrics by OpenTelemetry, named by its conventions for MCP (status: development; read 2026-11).

<https://github.com/open-telemetry/semantic-conventions-genai>, docs/gen-ai/mcp.md. Two things are left out on purpose:
what a tool is given or gives (`gen_ai.tool.call.*`), and `mcp.resource.uri`, which holds arguments as well.
Below: the packages of the extra `otel`. Above: `telemetry`.
"""

from __future__ import annotations

__all__ = ["Otel", "OtelServer", "start"]

import logging
import time
from collections.abc import Callable
from threading import Thread
from typing import Any, Final, TypeAlias

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.metrics import Histogram
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Link, Span, SpanKind, StatusCode, Tracer, get_current_span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from intercept_py.log import Log
from intercept_py.model import Json, Outcome
from intercept_py.observing import OTHER, Judged, Names, label
from intercept_py.policy.rules import Policy
from intercept_py.telemetry import Signals, TelemetryError
from intercept_py.wire.messages import DENIED_CODE, KNOWN_METHODS, PROTOCOL_VERSION_KEY

Attributes: TypeAlias = dict[str, str]

_BUCKETS: Final = [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 120, 300]
"""Those of the conventions."""
_RESERVED: Final = range(-32768, -31999)
"""The codes of JSON-RPC 2.0 (section 5.1): a bounded number. Servers choose others as they like."""
_LOGGER: Final = logging.getLogger("opentelemetry")
_ROOT: Final = Context()
_W3C: Final = TraceContextTextMapPropagator()


def start(wanted: Signals, version: str, log: Log, last_words: float) -> Otel:
    """Begin to send what is wanted, to where the environment says. Raises `TelemetryError`.

    At the end there are `last_words` seconds to send what is left. Nothing global is set but the logger
    `opentelemetry`, which speaks through `log` from now on.
    """
    _LOGGER.handlers = [_Handler(log)]
    _LOGGER.propagate = False
    try:
        return Otel(wanted, version, log, last_words)
    except Exception as exc:  # the library reads the variables; what it says of them may be a secret
        raise TelemetryError(
            f"OpenTelemetry cannot be started ({type(exc).__name__}): look at the variables `OTEL_...`"
        ) from None


class Otel:
    """Sends in threads of its own what the observers that it gives have seen. A full queue loses the oldest."""

    def __init__(self, wanted: Signals, version: str, log: Log, last_words: float) -> None:
        own = Resource({SERVICE_NAME: "intercept-py", SERVICE_VERSION: version})
        resource = Resource.create().merge(own).merge(OTELResourceDetector().detect())
        self._log = log
        self._last_words = last_words
        self._endings: list[Callable[[], Any]] = []
        self._tracer: Tracer | None = None
        self._duration: Histogram | None = None
        if wanted.traces:
            traces = TracerProvider(resource=resource, shutdown_on_exit=False)
            traces.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
            self._tracer = traces.get_tracer("intercept_py", version)
            self._endings.append(traces.shutdown)
        if wanted.metrics:
            reader = PeriodicExportingMetricReader(OTLPMetricExporter())
            meters = MeterProvider([reader], resource, shutdown_on_exit=False)
            self._duration = meters.get_meter("intercept_py", version).create_histogram(
                "mcp.server.operation.duration",
                "s",
                "MCP request duration as observed on the receiver.",
                explicit_bucket_boundaries_advisory=_BUCKETS,
            )
            self._endings.append(meters.shutdown)

    def watch(self, server: str, policy: Policy, transport: str) -> OtelServer:
        """See `Telemetry`."""
        return OtelServer(self._tracer, self._duration, server, policy, transport)

    def close(self) -> None:
        """See `Telemetry`."""
        # The library waits for a collector longer than anybody would for us.
        threads = [Thread(target=ending, daemon=True) for ending in self._endings]
        self._endings.clear()
        for thread in threads:
            thread.start()
        deadline = time.monotonic() + self._last_words
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        if any(thread.is_alive() for thread in threads):
            self._log("warn", f"telemetry: what could not be sent within {self._last_words:.0f} s is lost")
        _LOGGER.handlers = [logging.NullHandler()]  # threads that are still alive have nothing to say any more


class _Begun:
    """A request that is at the server."""

    __slots__ = ("attributes", "seconds", "span")

    def __init__(self, span: Span | None, attributes: Attributes, seconds: float) -> None:
        self.span = span
        self.attributes = attributes
        self.seconds = seconds


class OtelServer:
    """Makes a span of every request to one server, and of every request of the server's, see `Observer`."""

    def __init__(
        self, tracer: Tracer | None, duration: Histogram | None, server: str, policy: Policy, transport: str
    ) -> None:
        self._tracer = tracer
        self._duration = duration
        self._names = Names()
        self._names.learn(policy)
        self._fixed: Attributes = {"intercept.server": label(server), "network.transport": transport}
        if transport == "tcp":
            self._fixed["network.protocol.name"] = "http"

    def decided(self, judged: Judged) -> object:
        """Begin a span, and end it at once where the decision is the end."""
        if judged.message.id is None:
            return None
        attributes = self._bounded(judged)
        begun = _Begun(self._begin(judged, attributes), attributes, judged.seconds)
        if judged.finding is not None:
            if judged.call is not None:  # the answer is a result that says `isError`
                self._end(begun, "tool_error", None, 0.0)
            else:
                self._end(begun, str(DENIED_CODE), DENIED_CODE, 0.0)
        return begun

    def ended(self, seen: object, outcome: Outcome, code: int | None, seconds: float) -> None:
        """End a span."""
        assert isinstance(seen, _Begun)
        failed = None if outcome == "ok" else str(code) if outcome == "error" and code is not None else outcome
        self._end(seen, failed, code, seconds)

    def listed(self, names: list[str]) -> None:
        """Take the names of tools."""
        self._names.listed(names)

    def failed(self, code: str) -> None:
        """The denials that it causes are seen."""

    def reloaded(self, policy: Policy | None) -> None:
        """Take the names that a policy has."""
        if policy is not None:
            self._names.learn(policy)

    def _bounded(self, judged: Judged) -> Attributes:
        """Attributes of which there is a bounded number: those of a metric."""
        method = str(judged.message.method)
        attributes = {**self._fixed, "mcp.method.name": method if method in KNOWN_METHODS else OTHER}
        if judged.call is not None:
            attributes["gen_ai.operation.name"] = "execute_tool"
            attributes["gen_ai.tool.name"] = self._names(judged.call.name, judged.call.tool)
        attributes["intercept.decision"] = "allow" if judged.finding is None else "deny"
        return attributes

    def _begin(self, judged: Judged, bounded: Attributes) -> Span | None:
        if self._tracer is None:
            return None
        name, tool = bounded["mcp.method.name"], bounded.get("gen_ai.tool.name", OTHER)
        parent, links = _parents(judged)
        return self._tracer.start_span(
            name if tool == OTHER else f"{name} {tool}",
            parent,
            SpanKind.SERVER,
            bounded | _details(judged),
            links,
            time.time_ns() - int((judged.seconds + judged.ago) * 1e9),
        )

    def _end(self, begun: _Begun, failed: str | None, code: int | None, seconds: float) -> None:
        span = begun.span
        if span is not None:
            if failed is not None:
                span.set_attribute("error.type", failed)
                span.set_status(StatusCode.ERROR)
            if code is not None:
                span.set_attribute("rpc.response.status_code", str(code))
            span.end()
        if self._duration is not None:
            attributes = begun.attributes
            if failed is not None:
                strange = code is not None and code not in _RESERVED and code != DENIED_CODE
                attributes["error.type"] = "_OTHER" if strange else failed
            self._duration.record(begun.seconds + seconds, attributes)


def _details(judged: Judged) -> Attributes:
    """Attributes that only a span may have: there is no end of them."""
    message, caller, finding = judged.message, judged.caller, judged.finding
    details = {
        "mcp.method.name": str(message.method),
        "jsonrpc.request.id": str(message.id),
        "intercept.decision.id": judged.decision,
    }
    if judged.call is not None:
        details["gen_ai.tool.name"] = label(judged.call.name)
    elif message.method == "prompts/get" and type(name := message.params.get("name")) is str:
        details["gen_ai.prompt.name"] = label(name)
    more = {
        "mcp.protocol.version": _version(judged),
        "mcp.session.id": caller.session,
        "client.address": caller.address,
        "intercept.code": None if finding is None else finding.code,
        "intercept.rule": None if finding is None else finding.rule,
        "intercept.shadow.rule": next((one.rule for one in judged.shadowed if one.rule is not None), None),
    }
    return details | {key: label(value) for key, value in more.items() if value is not None}


def _version(judged: Judged) -> str | None:
    params = judged.message.params
    named: Json = params.get("protocolVersion") if judged.message.method == "initialize" else None
    named = _meta(judged).get(PROTOCOL_VERSION_KEY, named)
    if type(named) is str:
        return named
    arrival = judged.message.arrival
    return None if arrival is None else arrival.version


def _meta(judged: Judged) -> dict[str, Json]:
    meta = judged.message.params.get("_meta")
    return meta if type(meta) is dict else {}


def _parents(judged: Judged) -> tuple[Context, list[Link]]:
    """The span that a message names as its parent, else the one that its HTTP request names; that is a link otherwise.

    The message is not changed: the server sees the same parent, so our span is its server span's sibling.
    """
    meta, arrival = _meta(judged), judged.message.arrival
    named = _extract(meta.get("traceparent"), meta.get("tracestate"))
    ambient = None if arrival is None else _extract(arrival.traceparent, arrival.tracestate)
    if named is None:
        return ambient or _ROOT, []
    return named, [] if ambient is None else [Link(get_current_span(ambient).get_span_context())]


def _extract(traceparent: Json, tracestate: Json) -> Context | None:
    """A trace context (W3C) as a stranger names it; None for one that is none."""
    if type(traceparent) is not str:
        return None
    carrier = {"traceparent": traceparent}
    if type(tracestate) is str:
        carrier["tracestate"] = tracestate
    context = _W3C.extract(carrier)
    return context if get_current_span(context).get_span_context().is_valid else None


class _Handler(logging.Handler):
    """What the library says, on one line. Texts in it may be secrets (headers, a URL): only our own words are kept."""

    _WORDS: Final = frozenset({"spans", "metrics", "Span"})

    def __init__(self, log: Log) -> None:
        super().__init__(logging.WARNING)
        self._say = log

    def emit(self, record: logging.LogRecord) -> None:
        """Say it, without any traceback."""
        given = record.args if isinstance(record.args, tuple) else ()
        try:
            text = record.msg % tuple(map(self._word, given))
        except (TypeError, ValueError):
            text = record.name
        self._say("warn", f"telemetry: {text}")

    def _word(self, given: object) -> object:
        if isinstance(given, int | float) or (isinstance(given, str) and given in self._WORDS):
            return given
        return type(given).__name__ if isinstance(given, BaseException) else "..."
