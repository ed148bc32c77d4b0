import pytest

from gateway.stream.store_watch import StoreWatch, StreamTrouble

FULL, SOME, ROOM = 1_000, 2 << 20, 1 << 30


def observe(watch, *, trouble, free, seconds, start=0.0):
    """Two looks a second; when a restart was asked for, and made."""
    times = []
    for step in range(int(seconds * 2)):
        now = start + step / 2
        if watch.observe(trouble, free, now):
            times.append(now)
            watch.restarted()
    return times


def test_a_healthy_stream_is_left_alone():
    assert not observe(StoreWatch(), trouble=None, free=ROOM, seconds=1_000)


@pytest.mark.parametrize(
    "trouble", [None, "stream_timeout", "stream_slow", "nats_disconnected", "stream_limits"]
)
def test_a_full_disk_is_waited_for_and_room_starts_the_server_once_whatever_was_seen(trouble):
    """A moment without trouble at the wrong time must not leave a stopped stream behind."""
    watch = StoreWatch()
    assert not observe(watch, trouble="stream_timeout", free=FULL, seconds=500)
    assert watch.full
    assert not observe(watch, trouble=trouble, free=SOME, seconds=500, start=500)
    assert watch.full
    assert observe(watch, trouble=trouble, free=ROOM, seconds=50, start=1_000) == [1_000]
    assert not watch.full
    assert not observe(watch, trouble=None, free=SOME, seconds=50, start=1_050)
    assert not watch.full


def test_it_is_full_until_the_restart_is_made():
    watch = StoreWatch()
    watch.observe(None, FULL, 0.0)
    assert watch.observe(None, ROOM, 1.0)
    assert watch.full
    watch.restarted()
    assert not watch.full


def test_a_long_silence_ends_in_restarts_with_growing_pauses():
    times = observe(StoreWatch(), trouble="stream_slow", free=ROOM, seconds=1_000)
    assert times == [120.0, 360.5, 841.0]


def test_what_is_stored_in_between_starts_the_patience_anew():
    watch = StoreWatch()
    assert not observe(watch, trouble="stream_slow", free=ROOM, seconds=119)
    watch.observe(None, ROOM, 119.0)
    assert observe(watch, trouble="stream_slow", free=ROOM, seconds=130, start=120) == [240.0]


@pytest.mark.parametrize("trouble", ["nats_disconnected", "stream_limits", "stream_no_responders"])
def test_the_server_is_not_restarted_for_trouble_that_a_restart_does_not_cure(trouble):
    assert not observe(StoreWatch(), trouble=trouble, free=ROOM, seconds=1_000)


def test_trouble_is_kept_until_something_is_stored():
    """A pause between attempts, or a look-up that is answered, is no progress."""
    trouble = StreamTrouble()
    assert trouble.observe(None, stored=5, pending=3) is None
    assert trouble.observe("stream_slow", stored=5, pending=3) == "stream_slow"
    assert trouble.observe(None, stored=5, pending=3) == "stream_slow"
    assert trouble.observe(None, stored=5, pending=2) == "stream_slow"
    assert trouble.observe("stream_timeout", stored=5, pending=3) == "stream_timeout"
    assert trouble.observe(None, stored=6, pending=2) is None
    assert trouble.observe(None, stored=6, pending=2) is None


def test_with_nothing_to_store_there_is_no_trouble_to_keep():
    trouble = StreamTrouble()
    trouble.observe("stream_slow", stored=5, pending=3)
    assert trouble.observe(None, stored=5, pending=0) is None
    assert trouble.observe(None, stored=5, pending=1) is None


def test_a_connection_that_is_back_is_no_trouble():
    trouble = StreamTrouble()
    trouble.observe("stream_slow", stored=5, pending=3)
    assert trouble.observe("nats_disconnected", stored=5, pending=3) == "nats_disconnected"
    assert trouble.observe(None, stored=5, pending=3) is None
