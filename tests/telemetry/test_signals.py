"""Which variables have telemetry sent, and what is said where that cannot be done."""

from __future__ import annotations

import re
import sys

import pytest

from intercept_py.log import Log
from intercept_py.telemetry import Signals, TelemetryError, open_telemetry, signals

ENDPOINT = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"}
BOTH, NONE = Signals(traces=True, metrics=True), Signals(traces=False, metrics=False)


@pytest.mark.parametrize(
    ("environ", "wanted"),
    [
        ({}, NONE),
        ({"OTEL_SERVICE_NAME": "x"}, NONE),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": ""}, NONE),
        (ENDPOINT, BOTH),
        (ENDPOINT | {"OTEL_SDK_DISABLED": "TRUE"}, NONE),
        (ENDPOINT | {"OTEL_METRICS_EXPORTER": "none"}, Signals(traces=True, metrics=False)),
        (ENDPOINT | {"OTEL_TRACES_EXPORTER": "none"}, Signals(traces=False, metrics=True)),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, Signals(traces=True, metrics=False)),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://x/v1/traces"}, Signals(traces=True, metrics=False)),
        (ENDPOINT | {"OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}, BOTH),
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, NONE),
    ],
)
def test_telemetry_is_sent_where_an_endpoint_or_an_exporter_is_named(environ: dict[str, str], wanted: Signals) -> None:
    assert signals(environ) == wanted


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        (
            {"OTEL_TRACES_EXPORTER": "zipkin"},
            "`OTEL_TRACES_EXPORTER` asks for an exporter that there is none of: say `otlp` or `none`",
        ),
        (
            ENDPOINT | {"OTEL_METRICS_EXPORTER": "console"},
            "`OTEL_METRICS_EXPORTER` asks for an exporter that there is none of: say `otlp` or `none`",
        ),
        (
            ENDPOINT | {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"},
            "`OTEL_EXPORTER_OTLP_PROTOCOL` asks for a protocol that is not spoken: say `http/protobuf`",
        ),
        (
            ENDPOINT | {"OTEL_EXPORTER_OTLP_METRICS_PROTOCOL": "http/json"},
            "`OTEL_EXPORTER_OTLP_METRICS_PROTOCOL` asks for a protocol that is not spoken: say `http/protobuf`",
        ),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(environ: dict[str, str], message: str) -> None:
    with pytest.raises(TelemetryError, match=f"^{re.escape(message)}$"):
        signals(environ)


def test_nothing_is_imported_where_nothing_is_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "intercept_py.telemetry.otel", None)
    assert open_telemetry({}, "1", Log()) is None


def test_an_extra_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("opentelemetry.sdk.trace", "opentelemetry.exporter.otlp.proto.http.trace_exporter"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delitem(sys.modules, "intercept_py.telemetry.otel", raising=False)
    with pytest.raises(TelemetryError, match=r"not installed, .*: install `intercept-py\[otel\]`, or set"):
        open_telemetry(ENDPOINT, "1", Log())
