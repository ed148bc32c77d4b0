"""Spans in the form of OTLP, and their way over HTTP. Needs the packages of the extra `otel`.

The OpenTelemetry SDK is not used: its span costs ten times as much as a plain value, and its
exporter another ten times. The messages are those of opentelemetry-proto.

See https://opentelemetry.io/docs/specs/otlp/#otlphttp.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Final

import urllib3
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import InstrumentationScope, KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import (
    SPAN_FLAGS_CONTEXT_HAS_IS_REMOTE_MASK,
    SPAN_FLAGS_CONTEXT_IS_REMOTE_MASK,
    ScopeSpans,
    Status,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span as ProtoSpan

from gateway.telemetry.spans import Attributes, Span

_RETRYABLE: Final = frozenset({429, 502, 503, 504})
"""Statuses after which the same request may succeed later (OTLP/HTTP, "Retryable Response Codes").
"""
_OK: Final = range(200, 300)
_ATTRIBUTES_CACHED: Final = 8_192
_RESPONSE_BYTES_MAX: Final = 65_536
_SAMPLED: Final = 1
_LOCAL_PARENT: Final = SPAN_FLAGS_CONTEXT_HAS_IS_REMOTE_MASK | _SAMPLED
_REMOTE_PARENT: Final = _LOCAL_PARENT | SPAN_FLAGS_CONTEXT_IS_REMOTE_MASK


class Request:
    """One request to a collector, filled span by span."""

    def __init__(self, resource: Attributes, scope: str, version: str) -> None:
        self._message = ExportTraceServiceRequest()
        group = self._message.resource_spans.add()
        group.resource.CopyFrom(_resource(resource))
        self._scope: ScopeSpans = group.scope_spans.add()
        self._scope.scope.CopyFrom(InstrumentationScope(name=scope, version=version))

    def add(self, spans: Sequence[Span]) -> None:
        for span in spans:
            _fill(self._scope.spans.add(), span)

    def encoded(self) -> bytes:
        body: bytes = self._message.SerializeToString()
        return body


def _resource(attributes: Attributes) -> Resource:
    made = Resource()
    for key, value in attributes:
        made.attributes.append(_attribute(key, value))
    return made


def _attribute(key: str, value: str | int) -> KeyValue:
    made = KeyValue(key=key)
    if isinstance(value, str):
        made.value.string_value = value
    else:
        made.value.int_value = value
    return made


@lru_cache(_ATTRIBUTES_CACHED)
def _encoded_attribute(key: str, value: str) -> bytes:
    """A member `attributes` of a span. Names of devices and types come again and again."""
    encoded: bytes = ProtoSpan(attributes=[_attribute(key, value)]).SerializeToString()
    return encoded


@lru_cache
def _encoded_kind(name: str, kind: int) -> bytes:
    """The members `name` and `kind` of a span."""
    made = ProtoSpan(name=name)
    made.kind = kind  # type: ignore[assignment]  # the numbers of the protocol
    encoded: bytes = made.SerializeToString()
    return encoded


def _fill(made: ProtoSpan, span: Span) -> None:
    """Fill a span. Encoded members are merged, which costs a third of setting them one by one."""
    encoded, numbers = [_encoded_kind(span.name, span.kind)], []
    for key, value in span.attributes:
        if isinstance(value, str):
            encoded.append(_encoded_attribute(key, value))
        else:
            numbers.append((key, value))
    made.MergeFromString(b"".join(encoded))
    made.trace_id = span.trace_id
    made.span_id = span.span_id
    made.parent_span_id = span.parent_id
    made.flags = _REMOTE_PARENT if span.parent_id else _LOCAL_PARENT
    made.start_time_unix_nano = span.start_ns
    made.end_time_unix_nano = span.end_ns
    for key, number in numbers:
        attribute = made.attributes.add()
        attribute.key = key
        attribute.value.int_value = number
    for link in span.links:
        linked = made.links.add()
        linked.trace_id = link.trace_id
        linked.span_id = link.span_id
        linked.flags = _LOCAL_PARENT
    if span.error:
        made.status.code = Status.STATUS_CODE_ERROR
        made.status.message = span.error


class Collector:
    """The endpoint of a collector. Blocks, so it is used from a thread of its own.

    No proxy and no `.netrc` of the environment is used, and redirects are not followed.
    """

    def __init__(self, endpoint: str, headers: Mapping[str, str], timeout_s: float) -> None:
        self._endpoint = endpoint
        self._headers = {**headers, "Content-Type": "application/x-protobuf"}
        self._timeout = urllib3.Timeout(total=timeout_s)
        self._pool = urllib3.PoolManager(num_pools=1, maxsize=1, retries=False)

    def send(self, body: bytes) -> tuple[bool, str]:
        """Send one request.

        Returns:
            Whether the same request may succeed later, and why it failed; empty if it did not.
        """
        try:
            response = self._pool.request(
                "POST",
                self._endpoint,
                body=body,
                headers=self._headers,
                timeout=self._timeout,
                redirect=False,
                preload_content=False,
            )
            try:
                response.read(_RESPONSE_BYTES_MAX, decode_content=False)
            finally:
                response.release_conn()
        except (urllib3.exceptions.HTTPError, OSError) as exc:
            return True, f"{type(exc).__name__}: {exc}"
        if response.status in _OK:
            return False, ""
        return response.status in _RETRYABLE, f"status {response.status}"

    def close(self) -> None:
        self._pool.clear()
