"""Spans in the form of OTLP, and their way over HTTP. Needs the packages of the extra `otel`.

The OpenTelemetry SDK is not used: its span costs ten times as much as a plain value, and its
exporter another ten times. The messages are those of opentelemetry-proto; what is the same in many
spans is encoded by its library once, and the rest is written by hand.

See https://opentelemetry.io/docs/specs/otlp/#otlphttp.
"""

import struct
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Final

import urllib3
from opentelemetry.proto.common.v1.common_pb2 import InstrumentationScope, KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import (
    SPAN_FLAGS_CONTEXT_HAS_IS_REMOTE_MASK,
    SPAN_FLAGS_CONTEXT_IS_REMOTE_MASK,
    ResourceSpans,
    ScopeSpans,
    Status,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span as ProtoSpan

from gateway.telemetry.spans import Attributes, Recorded

_RETRYABLE: Final = frozenset({429, 502, 503, 504})
"""Statuses after which the same request may succeed later (OTLP/HTTP, "Retryable Response Codes").
"""
_OK: Final = range(200, 300)
_ATTRIBUTES_CACHED: Final = 8_192
_RESPONSE_BYTES_MAX: Final = 65_536
_SAMPLED: Final = 1
_LOCAL_PARENT: Final = SPAN_FLAGS_CONTEXT_HAS_IS_REMOTE_MASK | _SAMPLED
_REMOTE_PARENT: Final = _LOCAL_PARENT | SPAN_FLAGS_CONTEXT_IS_REMOTE_MASK


_TRACE_ID: Final = b"\x0a\x10"
_SPAN_ID: Final = b"\x12\x08"
_PARENT_ID: Final = b"\x22\x08"
_TIMES: Final = struct.Struct("<cQcQ")
_START: Final = b"\x39"
_END: Final = b"\x41"
_ATTRIBUTE: Final = b"\x4a"
_LINK: Final = b"\x6a\x21" + _TRACE_ID
_FLAGS: Final = b"\x85\x01"
_LINK_FLAGS: Final = b"\x35" + _LOCAL_PARENT.to_bytes(4, "little")
_OF_REMOTE_PARENT: Final = _FLAGS + _REMOTE_PARENT.to_bytes(4, "little")
_OF_LOCAL_PARENT: Final = _FLAGS + _LOCAL_PARENT.to_bytes(4, "little")
"""Tags and lengths of the members of a span and of a link (field number and wire type, see
https://protobuf.dev/programming-guides/encoding). A test compares them with opentelemetry-proto."""
_FIRST: Final = b"\x0a"
_SECOND: Final = b"\x12"
"""Tags of the members of a request, of `ResourceSpans` and of `ScopeSpans`."""
_MORE: Final = 0x80


class Request:
    """One request to a collector, filled span by span."""

    def __init__(self, resource: Attributes, scope: str, version: str) -> None:
        self._resource, self._scope = _constant_parts(resource, scope, version)
        self._spans: list[bytes] = []

    def add(self, spans: Sequence[Recorded]) -> None:
        self._spans += [_encoded_span(span) for span in spans]

    def encoded(self) -> bytes:
        scope_spans = self._scope + b"".join(self._spans)
        resource_spans = self._resource + _SECOND + _varint(len(scope_spans)) + scope_spans
        return _FIRST + _varint(len(resource_spans)) + resource_spans


@lru_cache
def _constant_parts(resource: Attributes, scope: str, version: str) -> tuple[bytes, bytes]:
    """The members `resource` of `ResourceSpans` and `scope` of `ScopeSpans`."""
    described = Resource(attributes=[_attribute(key, value) for key, value in resource])
    named = InstrumentationScope(name=scope, version=version)
    return (
        ResourceSpans(resource=described).SerializeToString(),
        ScopeSpans(scope=named).SerializeToString(),
    )


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
def _number_start(key: str, size: int) -> bytes:
    """What comes before the digits of an attribute whose value is an integer of `size` bytes."""
    encoded: bytes = KeyValue(key=key).SerializeToString()
    length = _varint(len(encoded) + 3 + size)
    return b"%b%b%b%b%c\x18" % (_ATTRIBUTE, length, encoded, _SECOND, size + 1)  # `int_value`


def _encoded_number(key: str, number: int) -> bytes:
    """A member `attributes` whose value is an integer."""
    digits = _varint(number)
    return _number_start(key, len(digits)) + digits


@lru_cache
def _encoded_kind(name: str, kind: int) -> bytes:
    """The members `name` and `kind` of a span."""
    made = ProtoSpan(name=name)
    made.kind = kind  # type: ignore[assignment]  # the numbers of the protocol
    encoded: bytes = made.SerializeToString()
    return encoded


def _encoded_error(error: str) -> bytes:
    """The member `status` of a span that failed."""
    status = Status(code=Status.STATUS_CODE_ERROR, message=error)
    encoded: bytes = ProtoSpan(status=status).SerializeToString()
    return encoded


def _encoded_span(span: Recorded) -> bytes:
    """A member `spans` of `ScopeSpans`.

    It is written by hand: setting the members of a message of the library one by one costs several
    times as much, and this is most of what a sampled message costs.
    """
    parts = [
        _TRACE_ID,
        span.trace_id,
        _SPAN_ID,
        span.span_id,
        _encoded_kind(span.name, span.kind),
        _TIMES.pack(_START, span.start_ns, _END, span.end_ns),
    ]
    if span.parent_id:
        parts += (_PARENT_ID, span.parent_id, _OF_REMOTE_PARENT)
    else:
        parts.append(_OF_LOCAL_PARENT)
    for key, value in span.attributes:
        if isinstance(value, str):
            parts.append(_encoded_attribute(key, value))
        else:
            parts.append(_encoded_number(key, value))
    for trace_id, span_id, _sampled in span.links:
        parts += (_LINK, trace_id, _SPAN_ID, span_id, _LINK_FLAGS)
    if span.error:
        parts.append(_encoded_error(span.error))
    body = b"".join(parts)
    return _SECOND + _varint(len(body)) + body


def _digits(number: int) -> bytes:
    """An unsigned integer in base 128, the lowest digit first."""
    digits = bytearray()
    while number >= _MORE:
        digits.append(number & (_MORE - 1) | _MORE)
        number >>= 7
    digits.append(number)
    return bytes(digits)


_KNOWN: Final = tuple(map(_digits, range(1_024)))
"""Most lengths of spans, and counts."""


def _varint(number: int) -> bytes:
    return _KNOWN[number] if number < len(_KNOWN) else _digits(number)


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
