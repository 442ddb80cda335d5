"""A collector of OpenTelemetry on the loopback, which keeps what it is sent.

with collecting() as collector:
    os.environ["OTEL_EXPORTER_OTLP_ENDPOINT"] = collector.url
    ...
    collector.spans()
"""

from __future__ import annotations

__all__ = ["Collector", "collecting", "values"]

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric
from opentelemetry.proto.trace.v1.trace_pb2 import Span


class Collector:
    """`bodies` holds what was posted, with its path. It answers `status`, and not before `open` is set."""

    def __init__(self) -> None:
        self.bodies: list[tuple[str, bytes]] = []
        self.status = 200
        self.asked = Event()
        self.open = Event()
        self.open.set()
        self.url = ""

    def spans(self) -> list[Span]:
        """Every span that came."""
        requests = (ExportTraceServiceRequest.FromString(body) for path, body in self.bodies if path == "/v1/traces")
        return [
            span
            for one in requests
            for group in one.resource_spans
            for scope in group.scope_spans
            for span in scope.spans
        ]

    def metrics(self) -> list[Metric]:
        """Every metric that came."""
        requests = (ExportMetricsServiceRequest.FromString(body) for path, body in self.bodies if path == "/v1/metrics")
        return [
            metric
            for one in requests
            for group in one.resource_metrics
            for scope in group.scope_metrics
            for metric in scope.metrics
        ]

    def resource(self) -> dict[str, str]:
        """What the first request for traces says of who sends it."""
        body = next(body for path, body in self.bodies if path == "/v1/traces")
        return values(ExportTraceServiceRequest.FromString(body).resource_spans[0].resource.attributes)


def values(attributes: Iterable[KeyValue]) -> dict[str, str]:
    """Attributes, all of them texts, as a dict."""
    assert all(one.value.WhichOneof("value") == "string_value" for one in attributes)
    return {one.key: one.value.string_value for one in attributes}


@contextmanager
def collecting() -> Iterator[Collector]:
    """A collector on a free port, while the block runs."""
    collector = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            collector.bodies.append((self.path, body))
            collector.asked.set()
            collector.open.wait(30)
            self.send_response(collector.status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        collector.url = f"http://127.0.0.1:{server.server_address[1]}"
        try:
            yield collector
        finally:
            collector.open.set()
            server.shutdown()
            thread.join()
