"""What a node knows of states: the newest of each device, within a bound."""

import pytest

from gateway.session.desired import STATE_BYTES_MAX
from gateway.stream.states.known import (
    NO_STATE,
    Known,
    KnownStates,
    desired_of,
    key_of,
    subject_of,
)


def key(number):
    return "t", f"veh-{number}"


@pytest.fixture
def known():
    states = KnownStates(bytes_max=10_000)
    states.begin("e", 7, "state.t.other")
    return states


def test_the_newest_is_kept(known):
    assert known.get(key(1)) is None
    assert known.learn(key(1), NO_STATE) == NO_STATE
    known.followed(key(1), Known(9, b"{}"))
    assert known.learn(key(1), Known(8, b'{"a":1}')) == Known(9, b"{}")
    assert known.get(key(1)) == Known(9, b"{}")
    assert known.witness == subject_of(key(1))
    assert key_of(known.witness) == key(1)


def test_an_answer_from_before_the_follower_began_proves_nothing(known):
    assert not known.proves(6)
    assert known.proves(7)


def test_what_is_forgotten_raises_the_floor(known):
    for number in range(100):
        known.followed(key(number), Known(100 + number, b'{"n":"%b"}' % (b"x" * number)))
        if number % 10 == 0:
            assert known.get(key(0)) is not None  # asked for now and then: it stays
    assert known.get(key(1)) is None
    assert len(known) < 30
    assert known.floor >= 101
    for number in range(100):
        if known.get(key(number)) is None:
            assert known.floor >= 100 + number


def test_a_state_larger_than_the_bound_is_kept_alone(known):
    known.learn(key(1), Known(8, b"{}"))
    known.learn(key(2), Known(9, b"x" * 20_000))
    assert len(known) == 1
    assert known.floor == 8


def test_another_stream_begins_with_nothing(known):
    known.learn(key(1), Known(8, b"{}"))
    generation = known.generation
    known.begin("f", 0, None)
    assert (len(known), known.epoch, known.proves(0)) == (0, "f", True)
    assert known.generation > generation


@pytest.mark.parametrize(
    ("payload", "desired"),
    [
        (b'{"desired":{}}', b"{}"),
        (b'{"desired": {"a": 1.50}, "by": "x"}', b'{"a": 1.50}'),
        (b"", None),
        (b"{}", None),
        (b"[]", None),
        (b'{"desired":null}', None),
        (b'{"desired":[1]}', None),
        (b'{"desired":"{"}', None),
        (b'{"desired":{"a":"\xff"}}', None),
        (b'{"desired":' + b"[" * 100_000, None),
        (b'{"desired":{"a":"%b"}}' % (b"x" * STATE_BYTES_MAX), None),
        (b'{"desired":{"a":%b}}' % (b"[" * 32 + b"]" * 32), None),
    ],
)
def test_only_an_object_is_a_state(payload, desired):
    assert desired_of(payload) == desired


def test_a_state_can_be_learned_before_the_follower_begins():
    states = KnownStates(bytes_max=10_000)
    assert states.learn(key(1), Known(9, b"{}")) == Known(9, b"{}")
    assert states.get(key(1)) == Known(9, b"{}")


def test_what_was_known_of_another_stream_takes_no_room(known):
    kept = []
    for epoch in ("e", "f"):
        known.begin(epoch, 7, None)
        for number in range(100):
            known.followed(key(number), Known(100 + number, b"{}"))
        kept.append(len(known))
    assert kept[0] == kept[1] < 100
