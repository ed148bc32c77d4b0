from msgspec import UNSET, Raw, structs

from tidegate.session import frame_bytes_of
from tidegate.tracing import TRACE_BYTES, traced
from tidegate.wire.frames import Message, encode_messages

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
BATCH = [Message(seq, "a.b", Raw(b'{"n":1}')) for seq in (7, 8, 9)]


def test_messages_that_are_traced_say_so_and_the_others_stay_as_they_are():
    marked = traced(BATCH, {8: TRACE}.get, 10_000)
    assert [message.trace for message in marked] == [UNSET, TRACE, UNSET]
    assert [structs.replace(message, trace=UNSET) for message in marked] == BATCH


def test_a_frame_never_grows_beyond_what_the_gateway_takes():
    full = sum(map(frame_bytes_of, BATCH))
    for room, expected in ((0, 0), (TRACE_BYTES - 1, 0), (TRACE_BYTES, 1), (2 * TRACE_BYTES, 2)):
        marked = traced(BATCH, lambda _seq: TRACE, full + room)
        assert sum(message.trace is TRACE for message in marked) == expected
        assert len(encode_messages(marked)) <= full + room


def test_the_bytes_of_a_trace_are_what_it_adds_to_a_message():
    (message,) = traced(BATCH[:1], lambda _seq: TRACE, 10_000)
    assert len(encode_messages([message])) - len(encode_messages(BATCH[:1])) == TRACE_BYTES
