"""The data of a message shows any damage, and whose it is."""

import json

from hypothesis import given
from hypothesis import strategies as st

from loadtest.devices.payloads import claim_of, intact, numbered, numbered_intact, payload


def test_damage_to_a_vehicles_message_shows():
    data = numbered(7, b'{"Vehicle.Speed":42.0}')
    assert json.loads(data)["n"] == 7
    assert numbered_intact("veh", 7, data)
    assert not numbered_intact("veh", 8, data)
    assert not numbered_intact("veh", 7, data.replace(b"42", b"43"))
    assert not numbered_intact("veh", 7, b"{}")


@given(st.sampled_from(["veh-1", "veh-1/a"]), st.integers(1, 10_000))
def test_damage_to_a_writers_message_shows_and_white_space_does_not_matter(label, seq):
    data = payload(label, seq)
    assert intact(label, seq, data)
    assert intact(label, seq, data.replace(b",", b" , "))
    assert not intact(label, seq + 1, data)
    assert not intact(f"{label}2", seq, data)
    assert not intact(label, seq, data[:-1])


def test_a_message_claims_an_outbox_of_its_device_and_of_no_other():
    assert claim_of("veh-1", payload("veh-1/a", 3)) == ("veh-1/a", 3)
    assert claim_of("veh-1", payload("veh-1", 3)) == ("veh-1", 3)
    assert claim_of("veh-1", payload("veh-2/a", 3)) == ("veh-1", 3)
    for damaged in (b"", b"[]", b'{"d":"veh-1"}', b'{"n":[]}'):
        assert claim_of("veh-1", damaged) == ("veh-1", 0)
