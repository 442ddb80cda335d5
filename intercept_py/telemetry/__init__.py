"""Whether to send traces and metrics by OpenTelemetry: what the standard `OTEL_*` variables say.

Nothing of OpenTelemetry is imported where they ask for nothing. Below: `otel`, which needs the extra of that name.
Above: the gateway.
"""

from __future__ import annotations

__all__ = ["Signals", "Telemetry", "TelemetryError", "open_for_stdio", "open_telemetry", "signals"]

from collections.abc import Mapping
from importlib import import_module
from typing import Final, Protocol, cast

import msgspec

from intercept_py.errors import InterceptError
from intercept_py.log import Log
from intercept_py.observing import Observer
from intercept_py.policy.rules import Policy

_ENDPOINT: Final = "OTEL_EXPORTER_OTLP_ENDPOINT"
_PROTOCOL: Final = "OTEL_EXPORTER_OTLP_PROTOCOL"
_LAST_WORDS: Final = 3.0
"""Seconds at the end to send what is left."""
_LAST_WORDS_ON_STDIO: Final = 1.0
"""A client gives its server about two seconds to end."""


class TelemetryError(InterceptError):
    """Variables that ask for what cannot be done."""


class Signals(msgspec.Struct, frozen=True):
    """What to send."""

    traces: bool
    metrics: bool

    @property
    def any(self) -> bool:
        """Whether there is something to send."""
        return self.traces or self.metrics


class Telemetry(Protocol):
    """What sends."""

    def watch(self, server: str, policy: Policy, transport: str) -> Observer:
        """The observer for one server's conversations. `transport` to the client: `tcp` (HTTP) or `pipe` (stdio)."""

    def close(self) -> None:
        """Send what there is. Takes a moment at most, whatever the collector does."""


class _Otel(Protocol):
    def start(self, wanted: Signals, version: str, log: Log, last_words: float) -> Telemetry: ...


def open_for_stdio(environ: Mapping[str, str], version: str, log: Log) -> Telemetry | None:
    """As `open_telemetry` for a proxy that its client starts, where what cannot be done is only said.

    Its variables are the client's as well, and may be meant for others.
    """
    try:
        return open_telemetry(environ, version, log, _LAST_WORDS_ON_STDIO)
    except TelemetryError as exc:
        log("warn", f"telemetry: nothing is sent: {exc}")
        return None


def open_telemetry(
    environ: Mapping[str, str], version: str, log: Log, last_words: float = _LAST_WORDS
) -> Telemetry | None:
    """Begin to send if the environment asks for it. `environ` must be that of the process: the library reads it, too.

    Raises `TelemetryError` where it asks for what cannot be done.
    """
    wanted = signals(environ)
    if not wanted.any:
        return None
    try:
        otel = cast(_Otel, import_module("intercept_py.telemetry.otel"))
    except ImportError as exc:  # it is missing, or versions of its parts do not fit together
        if not str(exc.name).startswith(("opentelemetry", "google", "requests")):
            raise
        raise TelemetryError(
            "variables `OTEL_...` ask for OpenTelemetry, which is not installed, or not as a whole: install "
            "`intercept-py[otel]`, or set `OTEL_SDK_DISABLED=true`"
        ) from None
    return otel.start(wanted, version, log, last_words)


def signals(environ: Mapping[str, str]) -> Signals:
    """What is to be sent, by OpenTelemetry's rules for these variables. An empty one is none.

    Nothing is sent unless an endpoint or an exporter is named, though (ours): the rules would have all programs send to
    a collector on their machine. Raises `TelemetryError`.
    """
    if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return Signals(traces=False, metrics=False)
    return Signals(traces=_wanted(environ, "TRACES"), metrics=_wanted(environ, "METRICS"))


def _wanted(environ: Mapping[str, str], signal: str) -> bool:
    named = environ.get(_ENDPOINT) or environ.get(f"OTEL_EXPORTER_OTLP_{signal}_ENDPOINT")
    exporter = environ.get(f"OTEL_{signal}_EXPORTER") or ("otlp" if named else "none")
    if exporter == "none":
        return False
    if exporter != "otlp":
        raise TelemetryError(
            f"`OTEL_{signal}_EXPORTER` asks for an exporter that there is none of: say `otlp` or `none`"
        )
    own = f"OTEL_EXPORTER_OTLP_{signal}_PROTOCOL"
    if (environ.get(own) or environ.get(_PROTOCOL) or "http/protobuf") != "http/protobuf":
        raise TelemetryError(
            f"`{own if environ.get(own) else _PROTOCOL}` asks for a protocol that is not spoken: say `http/protobuf`"
        )
    return True
