"""The checker finds what is wrong, and nothing else."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtest.checker import Checker
from loadtest.devices.payloads import payload


def good(devices=3, each=20, seed=1):
    """A stream: devices interleaved, each in order."""
    rng = random.Random(seed)
    left = {f"veh-{n}": iter(range(1, each + 1)) for n in range(devices)}
    stream = []
    while left:
        device = rng.choice(sorted(left))
        seq = next(left[device], None)
        if seq is None:
            del left[device]
        else:
            stream.append((device, seq, payload(device, seq)))
    return stream, {f"veh-{n}": each for n in range(devices)}


def checked(stream, acknowledged):
    checker = Checker()
    for message in stream:
        checker.take(*message)
    checker.finish(acknowledged)
    return {name: found.count for name, found in checker.findings()}


CLEAN = {"lost": 0, "duplicated": 0, "reordered": 0, "corrupted": 0}


@given(st.integers(0, 1_000))
def test_a_good_stream_is_clean_and_may_hold_more_than_was_acknowledged(seed):
    stream, acknowledged = good(seed=seed)
    assert checked(stream, acknowledged) == CLEAN
    assert checked(stream, dict.fromkeys(acknowledged, 5)) == CLEAN


@given(st.integers(0, 59))
def test_each_damage_is_found_and_named(at):
    stream, acknowledged = good()
    assert checked(stream[:at] + stream[at + 1 :], acknowledged) == {**CLEAN, "lost": 1}
    assert checked([*stream, stream[at]], acknowledged) == {**CLEAN, "duplicated": 1}
    device, seq, data = stream[at]
    for broken in (data[:-1], data.replace(b'"crc":', b'"crc":1'), payload("veh-9", seq)):
        damaged = [*stream[:at], (device, seq, broken), *stream[at + 1 :]]
        assert checked(damaged, acknowledged)["corrupted"] == 1


def test_reordering_is_within_a_device():
    stream, acknowledged = good(devices=1)
    swapped = [*stream[:4], stream[5], stream[4], *stream[6:]]
    assert checked(swapped, acknowledged) == {**CLEAN, "reordered": 1}
    both, acknowledged = good(devices=2)
    assert checked(sorted(both), acknowledged) == CLEAN, "between devices there is no order"


def test_examples_are_few():
    checker = Checker()
    checker.finish({"veh-1": 1_000})
    assert checker.lost.count == 1_000
    assert len(checker.lost.examples) == 5
    assert not checker.clean


@pytest.mark.parametrize("acked", [0, 1])
def test_a_message_that_was_not_acknowledged_may_be_missing(acked):
    assert checked([], {"veh-1": acked})["lost"] == acked
