"""The pace of a shared reader, and who must leave it."""

from gateway.events.pacing import (
    SHARE_BYTES,
    SHARE_EVENTS,
    SHARES_MAX,
    STALLED_S,
    Load,
    has_room,
    leavers,
)


def loads(*events, moved_at=0.0):
    return [Load(each, each * 100, moved_at) for each in events]


def test_there_is_a_share_of_room_for_each_rule_up_to_a_bound():
    assert has_room(loads(SHARE_EVENTS - 1))
    assert not has_room(loads(SHARE_EVENTS))
    assert has_room(loads(SHARE_EVENTS, 0))
    many = [0] * 100
    assert has_room(loads(SHARE_EVENTS * SHARES_MAX - 1, *many))
    assert not has_room(loads(SHARE_EVENTS * SHARES_MAX, *many))
    assert not has_room(loads(*[SHARE_EVENTS * SHARES_MAX // 100 + 1] * 100))


def test_bytes_fill_the_room_too():
    assert not has_room([Load(1, SHARE_BYTES, 0.0)])


def test_who_fills_a_share_alone_leaves():
    assert leavers(loads(SHARE_EVENTS, 0, 3), 0.1) == [0]
    assert leavers(loads(SHARE_EVENTS - 1, 0, 3), 0.1) == []


def test_rules_that_are_slow_together_stay_together():
    assert leavers(loads(SHARE_EVENTS, SHARE_EVENTS), 99.0) == []
    assert leavers(loads(SHARE_EVENTS, SHARE_EVENTS * 3 // 4), 0.1) == []


def test_the_only_rule_never_leaves():
    assert leavers(loads(9 * SHARE_EVENTS), 99.0) == []


def test_without_room_who_delivers_nothing_leaves():
    """Several receivers are down, and none of them fills a share alone."""
    stuck = [Load(SHARE_EVENTS // 2, 0, 0.0) for _ in range(2 * SHARES_MAX)]
    moving = loads(100, 50, 0, moved_at=STALLED_S)
    assert leavers([*stuck, *moving], STALLED_S) == list(range(2 * SHARES_MAX))
    assert leavers([*stuck, *moving], STALLED_S / 2) == []
    assert leavers([*stuck[2:], *moving], STALLED_S) == []  # there is room
