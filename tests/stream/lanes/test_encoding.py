from hypothesis import given
from hypothesis import strategies as st

from gateway.stream.lanes.encoding import (
    SourceHeaders,
    encode_atomic,
    encode_fast,
    encode_plain,
)
from support.nats_commands import parse

DATA = st.binary(max_size=80)


@given(st.lists(DATA, min_size=2, max_size=5))
def test_batches_number_their_messages(payloads):
    source = SourceHeaders("t", "d", "o")
    envelopes = [
        source.event(n, "a.b", "2026-11-23T10:00:00Z", data) for n, data in enumerate(payloads, 1)
    ]
    atomic = parse(encode_atomic(envelopes, b"batch", b"_INBOX.r"))
    fast = parse(encode_fast(envelopes, b"_INBOX.r"))
    last = len(payloads)
    for place, (subject, reply, pairs, payload) in enumerate(atomic, 1):
        assert subject == b"events.t.d.a.b"
        assert payload == payloads[place - 1]
        assert pairs[b"Nats-Batch-Id"] == b"batch"
        assert pairs[b"Nats-Batch-Sequence"] == b"%d" % place
        assert (b"Nats-Batch-Commit" in pairs) == (place == last)
        assert pairs.get(b"Nats-Expected-Stream") == (b"EVENTS" if place == last else None)
        assert reply == (b"_INBOX.r" if place == last else b"")
    parts = encode_atomic(envelopes[:1], b"batch", None) + encode_atomic(
        envelopes[1:], b"batch", b"_INBOX.r", 2
    )
    assert parse(parts) == atomic, "a batch sent in parts is the same batch"
    parts = encode_fast(envelopes[:1], b"_INBOX.r", commit=False) + encode_fast(
        envelopes[1:], b"_INBOX.r", 2
    )
    assert parse(parts) == fast
    operations = [reply.split(b".")[-2] for _, reply, _, _ in fast]
    assert operations == [b"0", *[b"1"] * (last - 2), b"2"]
    expected = [b"Nats-Expected-Stream" in pairs for _, _, pairs, _ in fast]
    assert expected == [True, *[False] * (last - 2), True]
    assert all(reply.startswith(b"_INBOX.r.60000.fail.") for _, reply, _, _ in fast)


def test_a_sampled_message_carries_its_trace():
    source = SourceHeaders("t", "d", "o")
    event = source.event(1, "a", "2026-11-23T10:00:00Z", b"1", b"traceparent:00-1-2-01\r\n")
    assert parse(encode_plain(event, b"r"))[0][2][b"traceparent"] == b"00-1-2-01"


def test_what_a_message_made_of_its_type_and_time_is_not_used_for_another():
    source = SourceHeaders("t", "d", "o")
    given = [("a", "2026-11-23T10:00:00Z"), ("b", "2026-11-23T10:00:00Z")]
    given += [("b", "2026-11-23T10:00:01Z"), ("a", "2026-11-23T10:00:01Z")]
    for seq, (kind, time) in enumerate(given, 1):
        ((subject, _, pairs, _),) = parse(encode_plain(source.event(seq, kind, time, b"1"), b"r"))
        assert subject == b"events.t.d." + kind.encode()
        assert (pairs[b"ce-type"], pairs[b"ce-time"]) == (kind.encode(), time.encode())
        assert (pairs[b"Nats-Msg-Id"], pairs[b"ce-id"]) == (b"t:d:o:%d" % seq, b"o:%d" % seq)


def test_sizes_and_places_have_as_many_digits_as_they_need():
    source = SourceHeaders("t", "d", "o")
    payloads = [b"x" * size for size in (1, 9, 80, 900, 4_000, 70_000)]
    envelopes = [source.event(n, "a", "", data) for n, data in enumerate(payloads, 9)]
    for first in (2, 7, 97, 998, 4_094):
        atomic = parse(encode_atomic(envelopes, b"batch", b"r", first))
        fast = parse(encode_fast(envelopes, b"r", first))
        for place, (_, _, pairs, payload) in enumerate(atomic, first):
            assert pairs[b"Nats-Batch-Sequence"] == b"%d" % place
            assert payload == payloads[place - first]
        for place, (_, reply, _, payload) in enumerate(fast, first):
            assert reply.split(b".")[-3] == b"%d" % place
            assert payload == payloads[place - first]


def test_an_envelope_gives_back_what_it_was_made_of():
    envelope = event()
    assert envelope.payload == b'{"soc":1}'
    assert envelope.subject == b"events.t.d.battery.low"
    assert envelope.headers.startswith(b"NATS/1.0\r\nNats-Msg-Id:t:d:box:7\r\n")
    assert envelope.headers.endswith(b"ce-time:2026-11-23T10:00:00Z\r\n")
    assert event(data=b"").payload == b""


def event(seq=7, data=b'{"soc":1}', kind="battery.low"):
    return SourceHeaders("t", "d", "box").event(seq, kind, "2026-11-23T10:00:00Z", data)


def test_an_envelope_knows_its_size():
    envelope = event()
    assert envelope.size == len(envelope.subject) + len(envelope.headers) + len(envelope.payload)
    assert event(data=b"12345").size - event(data=b"").size == 5
