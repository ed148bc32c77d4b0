import pytest

from gateway.events.errors import StreamReplaced, StreamWentBack
from gateway.events.position import Position, Start, StreamState, resume

CREATED = "2026-11-25T10:00:00.123456789Z"


@pytest.mark.parametrize(
    ("seq", "first", "last", "expected"),
    [
        (0, 0, 0, Start(1)),
        (0, 1, 9, Start(1)),
        (5, 1, 9, Start(6)),
        (9, 1, 9, Start(10)),
        (5, 6, 9, Start(6)),
        (5, 8, 9, Start(8, expired=2)),
        (9, 10, 9, Start(10)),
        (5, 10, 9, Start(10, expired=4)),
    ],
)
def test_where_to_read_on(seq, first, last, expected):
    position = Position(CREATED, seq, "id")
    id_there = "id" if first <= seq <= last else None
    assert resume(position, StreamState(CREATED, first, last), id_there) == expected


ANEW = "2027-01-01T00:00:00Z"


@pytest.mark.parametrize(("recorded", "there"), [("", ""), ("", "b"), ("a", "b"), ("a", None)])
def test_a_stream_made_anew(recorded, there):
    with pytest.raises(StreamReplaced, match="2027"):
        resume(Position(CREATED, 5, recorded), StreamState(ANEW, 1, 9), there)


def test_a_stream_restored_from_after_the_position_is_read_on():
    position, stream = Position(CREATED, 5, "a"), StreamState(ANEW, 1, 9)
    assert resume(position, stream, "a") == Start(6)
    assert position.within(stream) == Position(ANEW, 5, "a")


def test_a_stream_restored_from_before_the_position_is_not():
    with pytest.raises(StreamReplaced):
        resume(Position(CREATED, 5, "a"), StreamState(ANEW, 1, 4), None)


def test_a_stream_that_is_shorter_than_what_was_read():
    with pytest.raises(StreamWentBack, match="ends at 4"):
        resume(Position(CREATED, 5, "id"), StreamState(CREATED, 1, 4), None)


def test_another_message_under_the_same_sequence():
    with pytest.raises(StreamWentBack, match="was a and is now b"):
        resume(Position(CREATED, 5, "a"), StreamState(CREATED, 1, 9), "b")


def test_no_id_was_recorded_for_what_is_not_from_a_device():
    assert resume(Position(CREATED, 5), StreamState(CREATED, 1, 9), "b") == Start(6)
