"""A collector of traces in a thread: decodes the protocol buffers of OTLP/HTTP and keeps the spans.

It can also misbehave: be slow, refuse, or end in the middle.
"""

import contextlib
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final

from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span as ProtoSpan
from opentelemetry.proto.trace.v1.trace_pb2 import Status

_PATH: Final = "/v1/traces"
_TYPE: Final = "application/x-protobuf"


class ReceivedSpan:
    """A span as it came."""

    def __init__(self, service: str, span: ProtoSpan) -> None:
        self.service = service
        self.name = span.name
        self.kind = ProtoSpan.SpanKind.Name(span.kind)
        self.trace_id = span.trace_id.hex()
        self.span_id = span.span_id.hex()
        self.parent_id = span.parent_span_id.hex()
        self.start_ns = span.start_time_unix_nano
        self.end_ns = span.end_time_unix_nano
        self.attributes = _values(span.attributes)
        self.links = [(link.trace_id.hex(), link.span_id.hex()) for link in span.links]
        self.error = span.status.message if span.status.code == Status.STATUS_CODE_ERROR else ""


class TraceCollector:
    """What has come so far. Use `collecting`."""

    def __init__(self, *, status: int = 200, delay_s: float = 0.0) -> None:
        """
        Args:
            status: of the answer to each request.
            delay_s: before each answer.
        """
        self.status = status
        self.delay_s = delay_s
        self.spans: list[ReceivedSpan] = []
        self.headers: list[dict[str, str]] = []
        """Of each request, with names in lower case."""
        self.endpoint = ""
        self.ended = threading.Event()

    def named(self, name: str) -> list[ReceivedSpan]:
        """The spans of that name."""
        return [span for span in self.spans if span.name == name]

    def take(self, body: bytes) -> None:
        """Take a request.

        Raises:
            DecodeError: it is none.
        """
        request = ExportTraceServiceRequest.FromString(body)
        for group in request.resource_spans:
            service = _values(group.resource.attributes).get("service.name", "")
            for scope in group.scope_spans:
                self.spans += [ReceivedSpan(str(service), span) for span in scope.spans]


def _values(attributes: Iterable[KeyValue]) -> dict[str, str | int]:
    return {
        each.key: getattr(each.value, each.value.WhichOneof("value") or "string_value")
        for each in attributes
    }


@contextmanager
def collecting(*, status: int = 200, delay_s: float = 0.0) -> Iterator[TraceCollector]:
    """A collector on a free port of loopback. The arguments are those of `TraceCollector`."""
    collector = TraceCollector(status=status, delay_s=delay_s)
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler_of(collector))
    server.daemon_threads = True
    server.block_on_close = False
    collector.endpoint = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield collector
    finally:
        collector.ended.set()
        server.shutdown()
        server.server_close()
        thread.join()


def _handler_of(collector: TraceCollector) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
            status = collector.status
            if self.path != _PATH or self.headers.get("Content-Type") != _TYPE:
                status = 400
            if collector.ended.wait(collector.delay_s):
                return
            if status == 200:
                try:
                    collector.take(body)
                except DecodeError:
                    status = 400
            collector.headers.append({k.lower(): v for k, v in self.headers.items()})
            answer = ExportTraceServiceResponse().SerializeToString()
            self.send_response(status)
            self.send_header("Content-Type", _TYPE)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            with contextlib.suppress(ConnectionError):  # it did not wait
                self.wfile.write(answer)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # its name there
            """Nothing: what came is kept."""

    return Handler
