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


def test_a_stream_made_anew():
    with pytest.raises(StreamReplaced, match="2027"):
        resume(Position(CREATED, 5), StreamState("2027-01-01T00:00:00Z", 1, 9), "id")


def test_a_stream_that_is_shorter_than_what_was_read():
    with pytest.raises(StreamWentBack, match="ends at 4"):
        resume(Position(CREATED, 5, "id"), StreamState(CREATED, 1, 4), None)


def test_another_message_under_the_same_sequence():
    with pytest.raises(StreamWentBack, match="was a and is now b"):
        resume(Position(CREATED, 5, "a"), StreamState(CREATED, 1, 9), "b")


def test_no_id_was_recorded_for_what_is_not_from_a_device():
    assert resume(Position(CREATED, 5), StreamState(CREATED, 1, 9), "b") == Start(6)
