import pytest

from gateway.stream.store_watch import StoreWatch

FULL, ROOM = 1_000, 1 << 30


def observe(watch, *, trouble, free, seconds, start=0.0):
    """Two looks a second; when a restart was asked for."""
    looks = [start + step / 2 for step in range(int(seconds * 2))]
    return [now for now in looks if watch.observe(trouble, free, now)]


def test_a_healthy_stream_is_left_alone():
    assert not observe(StoreWatch(), trouble=None, free=ROOM, seconds=1_000)


def test_a_full_disk_is_waited_for_and_room_starts_the_server_once():
    watch = StoreWatch()
    assert not observe(watch, trouble="stream_timeout", free=FULL, seconds=1_000)
    assert watch.full
    assert observe(watch, trouble="stream_timeout", free=ROOM, seconds=50, start=1_000) == [1_000]
    assert not watch.full


def test_a_moment_of_silence_is_waited_out():
    watch = StoreWatch()
    watch.observe("stream_timeout", FULL, 0.0)
    assert not watch.observe("stream_timeout", ROOM, 1.0)
    assert watch.observe("stream_timeout", ROOM, 4.0)


def test_a_long_silence_ends_in_restarts_ever_more_seldom():
    times = observe(StoreWatch(), trouble="stream_slow", free=ROOM, seconds=1_000)
    assert times == [120.0, 360.0, 840.0]


@pytest.mark.parametrize("trouble", ["nats_disconnected", "stream_limits", "stream_no_responders"])
def test_what_a_restart_does_not_cure_gets_none(trouble):
    assert not observe(StoreWatch(), trouble=trouble, free=ROOM, seconds=1_000)


def test_a_little_room_is_not_enough():
    watch = StoreWatch()
    observe(watch, trouble="stream_timeout", free=FULL, seconds=10)
    assert not observe(watch, trouble="stream_timeout", free=2 << 20, seconds=1_000, start=10)
    assert watch.full


def test_a_full_disk_is_full_whatever_the_publisher_sees_until_there_is_real_room():
    """While nothing is sent, nothing fails: that is no reason to admit anybody."""
    watch = StoreWatch()
    for trouble in ("stream_timeout", None, "nats_disconnected", None):
        observe(watch, trouble=trouble, free=FULL, seconds=10)
        assert watch.full
        observe(watch, trouble=trouble, free=2 << 20, seconds=10)
        assert watch.full
    watch.observe(None, 16 << 20, 100.0)
    assert not watch.full
    watch.observe(None, 2 << 20, 101.0)
    assert not watch.full


def test_a_disk_that_had_room_again_before_it_mattered_is_forgotten():
    watch = StoreWatch()
    watch.observe(None, FULL, 0.0)
    assert watch.full
    watch.observe(None, ROOM, 1.0)
    assert not watch.full
    assert not observe(watch, trouble="stream_timeout", free=ROOM, seconds=30, start=2)
