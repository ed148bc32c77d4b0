import re

from hypothesis import given
from hypothesis import strategies as st

from gateway.stream.lanes.dead_letters import letter_of, write_letter
from gateway.stream.lanes.encoding import SourceHeaders, encode_plain
from support.nats_commands import parse
from tidegate.wire.frames import decode_device_frame

TOKEN = st.from_regex(r"\A[A-Za-z0-9_-]{1,64}\Z", fullmatch=True)


@given(
    TOKEN,
    TOKEN,
    TOKEN,
    st.integers(1, 2**53),
    st.text(max_size=300),
    st.text(max_size=80),
    st.binary(max_size=80),
)
def test_no_reason_or_payload_can_forge_a_protocol_line(
    tenant, device, outbox, seq, detail, error, raw
):
    headers = SourceHeaders(tenant, device, outbox)
    error = re.sub("[^a-z_]", "", error)  # errors are from a fixed set
    dead = write_letter(headers, seq, error, detail, "2026-11-23T10:00:00Z", raw)
    ((subject, reply, pairs, payload),) = parse(encode_plain(dead, b"_INBOX.x"))
    assert subject == f"deadletters.{tenant}.{device}".encode()
    assert reply == b"_INBOX.x"
    assert payload == raw
    assert pairs[b"Nats-Msg-Id"] == f"{tenant}:{device}:{outbox}:{seq}".encode()
    assert pairs[b"Tidegate-Seq"] == b"%d" % seq
    assert pairs[b"Nats-Expected-Stream"] == b"DEADLETTERS"
    assert pairs[b"Tidegate-Outbox"] == outbox.encode()


def event(seq=7, data=b'{"soc":1}', kind="battery.low"):
    return SourceHeaders("t", "d", "box").event(seq, kind, "2026-11-23T10:00:00Z", data)


def test_the_letter_of_an_event_is_the_message_as_it_may_have_been_sent():
    letter, detail = letter_of(event(), 7, "header_size")
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
    letter, _ = letter_of(event(data=b'"%s"' % (b"x" * 9_000)), 7, "message_size")
    ((_, _, pairs, payload),) = parse(encode_plain(letter, b"r"))
    assert len(payload) == 4_096
    assert int(pairs[b"Tidegate-Truncated"]) > 9_000


def test_letters_of_reused_seqs_are_told_apart_by_their_content():
    ids = [
        letter_of(event(data=data, kind=kind), 7, "seq_reused")[0].headers.split(b"\r\n")[1]
        for data, kind in ((b"1", "a"), (b"1", "a"), (b"2", "a"), (b"1", "b"))
    ]
    assert ids[0] == ids[1]
    assert len(set(ids)) == 3
    assert all(re.fullmatch(rb"Nats-Msg-Id:t:d:box:7:[0-9a-f]{16}", each) for each in ids)


def test_a_letter_that_the_stream_refuses_is_not_wrapped_in_another():
    first, _ = letter_of(event(), 7, "header_size")
    again, _ = letter_of(first, 7, "header_size")
    assert again.payload == first.payload
