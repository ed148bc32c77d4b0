import re

from hypothesis import given
from hypothesis import strategies as st

from gateway.stream.encoding import SourceHeaders, encode_atomic, encode_fast, encode_plain
from tidegate.wire.frames import decode_device_frame

TOKEN = st.from_regex(r"\A[A-Za-z0-9_-]{1,64}\Z", fullmatch=True)
DATA = st.binary(max_size=80)


def parse(wire):
    """Commands of a byte string, as a NATS server reads them."""
    commands = []
    while wire:
        line, _, wire = wire.partition(b"\r\n")
        verb, subject, *reply, headers_size, total_size = line.split(b" ")
        assert verb == b"HPUB"
        assert len(reply) <= 1
        body = wire[: int(total_size)]
        assert wire[int(total_size) : int(total_size) + 2] == b"\r\n"
        wire = wire[int(total_size) + 2 :]
        headers, payload = body[: int(headers_size)], body[int(headers_size) :]
        assert headers.startswith(b"NATS/1.0\r\n")
        assert headers.endswith(b"\r\n\r\n")
        lines = headers[len(b"NATS/1.0\r\n") : -4].split(b"\r\n")
        pairs = dict(line.split(b":", 1) for line in lines)
        assert len(pairs) == len(lines)
        commands.append((subject, reply[0] if reply else b"", pairs, payload))
    return commands


@given(
    TOKEN, TOKEN, TOKEN, st.integers(1, 2**53), st.text(max_size=300), st.text(max_size=80), DATA
)
def test_no_reason_or_payload_can_forge_a_protocol_line(
    tenant, device, outbox, seq, detail, error, raw
):
    headers = SourceHeaders(tenant, device, outbox)
    error = re.sub("[^a-z_]", "", error)  # errors are from a fixed set
    dead = headers.dead_letter(seq, error, detail, "2026-11-23T10:00:00Z", raw)
    ((subject, reply, pairs, payload),) = parse(encode_plain(dead, b"_INBOX.x"))
    assert subject == f"deadletters.{tenant}.{device}".encode()
    assert reply == b"_INBOX.x"
    assert payload == raw
    assert pairs[b"Nats-Msg-Id"] == f"{tenant}:{device}:{outbox}:{seq}".encode()
    assert pairs[b"Tidegate-Seq"] == b"%d" % seq
    assert pairs[b"Nats-Expected-Stream"] == b"DEADLETTERS"
    assert pairs[b"Tidegate-Outbox"] == outbox.encode()


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


def event(seq=7, data=b'{"soc":1}', kind="battery.low"):
    return SourceHeaders("t", "d", "box").event(seq, kind, "2026-11-23T10:00:00Z", data)


def test_an_envelope_knows_its_size():
    envelope = event()
    assert envelope.size == len(envelope.subject) + len(envelope.headers) + len(envelope.payload)
    assert event(data=b"12345").size - event(data=b"").size == 5


def test_the_letter_of_an_event_is_the_message_as_it_may_have_been_sent():
    letter, detail = event().dead_letter(7, "header_size")
    ((subject, _, pairs, payload),) = parse(encode_plain(letter, b"r"))
    assert (subject, detail) == (b"deadletters.t.d", "refused by the stream")
    assert pairs[b"Nats-Msg-Id"] == b"t:d:box:7"
    assert pairs[b"Tidegate-Error"] == b"header_size"
    (message,) = decode_device_frame(payload)
    assert (message.seq, message.type, bytes(message.data), message.time) == (
        7,
        "battery.low",
        b'{"soc":1}',
        "2026-11-23T10:00:00Z",
    )


def test_the_letter_of_what_is_too_large_is_its_beginning():
    letter, _ = event(data=b'"%s"' % (b"x" * 9_000)).dead_letter(7, "message_size")
    ((_, _, pairs, payload),) = parse(encode_plain(letter, b"r"))
    assert len(payload) == 4_096
    assert int(pairs[b"Tidegate-Truncated"]) > 9_000


def test_letters_of_reused_seqs_are_told_apart_by_their_content():
    ids = [
        event(data=data, kind=kind).dead_letter(7, "seq_reused")[0].headers.split(b"\r\n")[1]
        for data, kind in ((b"1", "a"), (b"1", "a"), (b"2", "a"), (b"1", "b"))
    ]
    assert ids[0] == ids[1]
    assert len(set(ids)) == 3
    assert all(re.fullmatch(rb"Nats-Msg-Id:t:d:box:7:[0-9a-f]{16}", each) for each in ids)


def test_a_letter_that_the_stream_refuses_is_not_wrapped_in_another():
    first, _ = event().dead_letter(7, "header_size")
    again, _ = first.dead_letter(7, "header_size")
    assert again.payload == first.payload
