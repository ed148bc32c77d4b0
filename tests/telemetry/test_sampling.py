import random
from collections import Counter

import pytest
from msgspec import UNSET, Raw

from gateway.telemetry.sampling import KEPT_MAX, Sampling
from gateway.telemetry.spans import MessageTraces
from tidegate.wire.frames import Message, Unusable
from tidegate.wire.traceparent import Traceparent, read_traceparent

DEVICE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
KEY = ("t", "veh-1", "box")
MESSAGES = 20_000
RATIO = 0.01


class Node:
    """The sampling of a node, whose clock is moved by hand."""

    def __init__(self, ratio, per_s=1e6):
        self.now = 0.0
        self.spans = []
        sampling = Sampling(ratio, per_s, rng=random.Random(7), clock=lambda: self.now)
        self.sample = MessageTraces(sampling, self.spans.append).sampler()

    def count(self, messages, trace=UNSET):
        """The spans of so many messages, in frames of up to five."""
        spans = []
        for start in range(0, messages, 5):
            seqs = range(start, min(start + 5, messages))
            frame = [Message(seq, "a", Raw(b"1"), UNSET, trace) for seq in seqs]
            spans += (self.sample(frame, KEY) or {}).values()
        return spans


def parent_of(node, span):
    span.settled("")
    return node.spans[-1]


def test_the_ratio_of_the_messages_is_sampled_and_each_begins_a_trace():
    node = Node(RATIO)
    spans = node.count(MESSAGES)
    assert 0.7 * RATIO * MESSAGES < len(spans) < 1.3 * RATIO * MESSAGES
    headers = {span.header for span in spans}
    assert len(headers) == len(spans)
    for header in headers:
        name, _, value = header.partition(b":")
        assert name == b"traceparent"
        assert value.endswith(b"\r\n")
        found = read_traceparent(value.decode().strip())
        assert found is not None
        assert found.sampled
    assert parent_of(node, spans[0]).parent_id == b""


def test_a_trace_that_a_device_started_goes_on():
    node = Node(RATIO)
    (span,) = node.count(1, DEVICE)
    parent = read_traceparent(DEVICE)
    record = parent_of(node, span)
    assert (record.trace_id, record.parent_id) == (parent.trace_id, parent.span_id)
    assert span.header.startswith(b"traceparent:00-0af7651916cd43dd8448eb211c80319c-")
    assert parent.span_id.hex().encode() not in span.header


def test_devices_that_trace_everything_get_no_more_than_the_ratio():
    node = Node(RATIO)
    hits = len(Node(RATIO).count(MESSAGES))
    traced = len(node.count(MESSAGES, DEVICE))
    assert hits / 2 < traced <= hits + KEPT_MAX


def test_devices_that_trace_within_the_ratio_are_all_heard():
    node = Node(RATIO)
    for _ in range(200):
        node.count(300)  # three hits or so
        assert len(node.count(1, DEVICE)) == 1


@pytest.mark.parametrize("trace", [DEVICE[:-2] + "00", "00-nonsense", "", "x" * 60_000])
def test_a_trace_that_is_no_trace_or_not_sampled_is_ignored(trace):
    assert Node(RATIO).count(1, trace) == []
    assert len(Node(1.0).count(5, trace)) == 5


def test_a_message_that_cannot_be_stored_has_no_span():
    node = Node(1.0)
    frame = [
        Unusable(1, "schema", "no soc", b"{}"),
        Message(2, "a", Raw(b"1")),
        Message(3, "a", Raw(b"1"), UNSET, DEVICE),
    ]
    spans = node.sample(frame, KEY)
    assert list(spans) == [2, 3]
    assert parent_of(node, spans[3]).parent_id == read_traceparent(DEVICE).span_id


def test_every_message_of_a_frame_is_as_likely_as_any_other():
    node, places = Node(0.1), Counter()
    for _ in range(5_000):
        frame = [Message(seq, "a", Raw(b"1")) for seq in range(4)]
        places.update(list(node.sample(frame, KEY) or ()))
    assert set(places) == {0, 1, 2, 3}
    assert all(400 < count < 600 for count in places.values())


def test_the_rate_bounds_what_the_ratio_allows():
    node = Node(1.0, per_s=10)
    assert len(node.count(1_000)) == 10
    node.now = 2.5
    assert len(node.count(1_000, DEVICE)) == 10  # no more than a second's worth is kept
    node.now = 3.0
    assert len(node.count(1_000)) == 5


def test_a_sampled_trace_has_ids_that_are_not_zero():
    class Zeros(random.Random):
        def getrandbits(self, k):
            return 0

    sampling = Sampling(1.0, 10, rng=Zeros(1), clock=lambda: 0.0)
    begun = sampling.choose(UNSET, True)
    assert begun == Traceparent(bytes(15) + b"\1", b"")
    assert sampling.ids.span_id() == bytes(7) + b"\1"
