"""File descriptors: connections get what is left after the reserve."""

import resource

import pytest

from gateway.edge.listening.descriptors import RESERVED, Room, needed, raise_limit, room_within


def test_enough_for_all():
    assert needed(18_000, 4_096) == 18_000 + 4_096 + RESERVED
    assert room_within(needed(100, 50), 100, 50) == Room(100, 50)


@pytest.mark.parametrize("limit", [300, 400, 1_024, 4_096, 20_000])
def test_with_too_few_both_have_room_and_the_reserve_stays(limit):
    room = room_within(limit, 18_000, 4_096)
    assert room.devices > 2 * room.anonymous > 0
    assert room.devices + room.anonymous == limit - RESERVED


def test_with_less_than_the_reserve_one_connection_of_each_kind_is_held():
    assert room_within(100, 18_000, 4_096) == Room(1, 1)


def test_few_anonymous_connections_leave_more_room_for_devices():
    assert room_within(RESERVED + 100, 18_000, 5) == Room(95, 5)


@pytest.mark.parametrize(
    ("soft", "hard", "wanted", "allowed"),
    [
        (1_024, 4_096, 500, 500),
        (1_024, 4_096, 2_000, 2_000),
        (1_024, 4_096, 9_000, 4_096),
        (1_024, resource.RLIM_INFINITY, 9_000, 9_000),
        (resource.RLIM_INFINITY, resource.RLIM_INFINITY, 9_000, 9_000),
    ],
)
def test_the_limit_is_raised_as_far_as_the_system_allows(monkeypatch, soft, hard, wanted, allowed):
    limits = [(soft, hard)]
    monkeypatch.setattr(resource, "getrlimit", lambda _what: limits[-1])
    monkeypatch.setattr(resource, "setrlimit", lambda _what, limit: limits.append(limit))
    assert raise_limit(wanted) == allowed
    if len(limits) > 1:
        assert limits[-1] == (allowed, hard)


def test_a_system_that_refuses_to_raise_leaves_the_limit(monkeypatch):
    def refuse(_what, _limit):
        raise ValueError("not allowed to raise maximum limit")

    monkeypatch.setattr(resource, "getrlimit", lambda _what: (256, resource.RLIM_INFINITY))
    monkeypatch.setattr(resource, "setrlimit", refuse)
    assert raise_limit(9_000) == 256
