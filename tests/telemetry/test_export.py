"""The export, over a receiver in memory and over one that speaks HTTP."""

import random
import threading
import time

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span as ProtoSpan
from opentelemetry.proto.trace.v1.trace_pb2 import Status

from gateway.telemetry import export
from gateway.telemetry.export import REQUEST_SPANS_MAX, SpanExport
from gateway.telemetry.otlp import Collector, Request
from gateway.telemetry.spans import SERVER, Span
from loadtest.servers.otlp import collecting
from loadtest.servers.process import free_port
from support.waiting import eventually
from tidegate.wire.traceparent import Traceparent

TRACE, SPAN, PARENT = b"t" * 16, b"s" * 8, b"p" * 8


def span(number=1, **members):
    given = {
        "name": "tidegate message",
        "kind": SERVER,
        "trace_id": TRACE,
        "span_id": SPAN,
        "parent_id": PARENT,
        "start_ns": 5,
        "end_ns": 9,
        "attributes": (("tidegate.device", "veh-1"), ("tidegate.seq", number)),
        **members,
    }
    return Span(**given)


class InMemory:
    """A receiver: what it answers is set from outside, and it can be blocked."""

    def __init__(self):
        self.bodies = []
        self.answers = []
        self.free = threading.Event()
        self.free.set()
        self.closed = False

    def send(self, body):
        self.free.wait(30)
        answer = self.answers.pop(0) if self.answers else (False, "")
        if not answer[1]:
            self.bodies.append(body)
        return answer

    def close(self):
        self.closed = True


class Listed:
    """A request as a list of spans."""

    def __init__(self):
        self.spans = []

    def add(self, spans):
        self.spans += spans

    def encoded(self):
        return self.spans


@pytest.fixture
def receiver():
    return InMemory()


@pytest.fixture
async def exporting(receiver):
    made = SpanExport(receiver, Listed, queue_max=1_000, rng=random.Random(1))
    made.start()
    yield made
    receiver.free.set()
    await made.stop()


def dropped(exporting):
    _, family = exporting.collect()
    return {sample.labels["reason"]: sample.value for sample in family.samples}


async def test_spans_are_exported_in_order_in_requests_of_a_bounded_size(receiver, exporting):
    numbered = [span(number) for number in range(700)]
    for each in numbered:
        exporting.record(each)
    await exporting.stop()
    assert [each for body in receiver.bodies for each in body] == numbered
    assert max(map(len, receiver.bodies)) <= REQUEST_SPANS_MAX
    assert exporting.exported == 700
    assert exporting.dropped == 0
    assert receiver.closed


async def test_a_receiver_that_hangs_costs_spans_and_neither_time_nor_memory(
    receiver, exporting, monkeypatch
):
    monkeypatch.setattr(export, "FLUSH_S", 0.05)
    receiver.free.clear()
    for number in range(50_000):
        exporting.record(span(number))
    assert len(exporting._queue) == 1_000
    assert dropped(exporting)["queue"] >= 50_000 - 1_000 - 2 * REQUEST_SPANS_MAX
    await exporting.stop()  # it ends, although the receiver still hangs
    assert not receiver.closed
    receiver.free.set()
    await eventually(lambda: receiver.closed)


async def test_a_request_is_repeated_until_it_succeeds(receiver, exporting, monkeypatch):
    monkeypatch.setattr(export, "_RETRY_S", 0.001)
    receiver.answers = [(True, "status 503"), (True, "connection refused")]
    exporting.record(span())
    await eventually(lambda: receiver.bodies)
    assert dropped(exporting) == {"queue": 0, "failed": 0}


async def test_a_request_that_cannot_succeed_is_given_up(receiver, exporting):
    receiver.answers = [(False, "status 400")]
    exporting.record(span())
    await eventually(lambda: exporting.dropped)
    assert dropped(exporting) == {"queue": 0, "failed": 1}
    exporting.record(span(2))
    await eventually(lambda: receiver.bodies)


async def test_a_request_that_fails_for_too_long_is_given_up(receiver, monkeypatch):
    monkeypatch.setattr(export, "_RETRY_S", 0.001)
    moments = iter([0.0, 10.0, 31.0, 40.0])
    made = SpanExport(
        receiver, Listed, queue_max=10, rng=random.Random(1), clock=lambda: next(moments)
    )
    receiver.answers = [(True, "status 503")] * 2
    made.record(span())
    made.start()
    await eventually(lambda: made.dropped)
    assert dropped(made) == {"queue": 0, "failed": 1}
    assert receiver.answers == []
    await made.stop()


async def test_an_error_of_the_export_is_logged_and_the_process_goes_on(receiver, capsys):
    class Broken(Listed):
        def encoded(self):
            raise ValueError("a fault of ours")

    made = SpanExport(receiver, Broken, queue_max=2, rng=random.Random(1))
    made.start()
    made.record(span())
    await eventually(lambda: not made._thread.is_alive())
    for number in range(5):
        made.record(span(number))
    assert dropped(made)["queue"] == 3
    await made.stop()
    logged = capsys.readouterr()
    assert "span_export_failed" in logged.out + logged.err


# Over HTTP


def requests():
    return Request((("service.name", "tidegate-gateway"),), "tidegate", "1.0")


def over_http(endpoint, headers=None, timeout_s=5.0):
    collector = Collector(f"{endpoint}/v1/traces", headers or {}, timeout_s)
    return SpanExport(collector, requests, queue_max=1_000, rng=random.Random(1))


async def test_a_collector_reads_the_protocol_buffers():
    batch = Traceparent(b"b" * 16, b"c" * 8)
    with collecting() as collector:
        made = over_http(collector.endpoint, {"authorization": "Bearer s3cret"})
        made.start()
        made.record(span(7, links=(batch,), error="dead letter: too_large"))
        made.record(span(8, parent_id=b""))
        await made.stop()
    first, second = collector.spans
    assert first.service == "tidegate-gateway"
    assert first.name == "tidegate message"
    assert first.kind == "SPAN_KIND_SERVER"
    assert (first.trace_id, first.span_id) == (TRACE.hex(), SPAN.hex())
    assert first.parent_id == PARENT.hex()
    assert (first.start_ns, first.end_ns) == (5, 9)
    assert first.attributes == {"tidegate.device": "veh-1", "tidegate.seq": 7}
    assert first.links == [(batch.trace_id.hex(), batch.span_id.hex())]
    assert first.error == "dead letter: too_large"
    assert (second.parent_id, second.links, second.error) == ("", [], "")
    assert collector.headers[0]["authorization"] == "Bearer s3cret"


@pytest.mark.parametrize("number", [0, 1, 127, 128, 16_383, 16_384, 2**63 - 1])
@pytest.mark.parametrize("length", [0, 1, 63, 127, 128, 300])
def test_what_is_written_by_hand_is_what_the_library_writes(number, length):
    text = "x" * length
    link = Traceparent(b"b" * 16, b"c" * 8)
    attributes = (("text", text), ("number", number), ("n" * 130, number))
    made = requests()
    made.add([span(attributes=attributes, links=(link,) * 8, error=text, start_ns=number)])
    whole = ExportTraceServiceRequest.FromString(made.encoded())
    (resource,) = whole.resource_spans
    (scope,) = resource.scope_spans
    (found,) = scope.spans
    assert (scope.scope.name, scope.scope.version) == ("tidegate", "1.0")
    expected = ProtoSpan(
        trace_id=TRACE, span_id=SPAN, parent_span_id=PARENT, name="tidegate message", kind=SERVER,
        start_time_unix_nano=number, end_time_unix_nano=9, flags=0x301,
        attributes=[
            KeyValue(key="text", value=AnyValue(string_value=text)),
            KeyValue(key="number", value=AnyValue(int_value=number)),
            KeyValue(key="n" * 130, value=AnyValue(int_value=number)),
        ],
        links=[ProtoSpan.Link(trace_id=link.trace_id, span_id=link.span_id, flags=0x101)] * 8,
    )  # fmt: skip
    if text:
        expected.status.code, expected.status.message = Status.STATUS_CODE_ERROR, text
    assert found == expected


def test_a_span_that_begins_a_trace_has_no_parent_and_says_so():
    made = requests()
    made.add([span(parent_id=b"")])
    whole = ExportTraceServiceRequest.FromString(made.encoded())
    found = whole.resource_spans[0].scope_spans[0].spans[0]
    assert (found.parent_span_id, found.flags) == (b"", 0x101)


@pytest.mark.parametrize(("status", "repeatable"), [(503, True), (429, True), (400, False)])
def test_a_status_says_whether_a_repeat_helps(status, repeatable):
    with collecting(status=status) as collector:
        answer = Collector(f"{collector.endpoint}/v1/traces", {}, 5.0).send(b"")
    assert answer == (repeatable, f"status {status}")


def test_a_collector_that_is_away_or_slow_is_a_trouble_that_may_pass():
    again, trouble = Collector(f"http://127.0.0.1:{free_port()}/v1/traces", {}, 5.0).send(b"")
    assert again
    assert trouble
    began = time.monotonic()
    with collecting(delay_s=25.0) as collector:
        again, trouble = Collector(f"{collector.endpoint}/v1/traces", {}, 0.1).send(b"")
    assert again
    assert "Timeout" in trouble
    assert time.monotonic() - began < 20
