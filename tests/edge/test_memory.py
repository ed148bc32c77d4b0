"""What is remembered of refused devices: bounded, and not to be displaced by forged tokens."""

import base64
import json

import pytest

from gateway.edge import memory
from gateway.edge.memory import DeviceMemory

REFUSED = (1.0, "admission", "rate", 2.0)


def token(claims):
    body = base64.urlsafe_b64encode(json.dumps(claims).encode()).rstrip(b"=").decode()
    return f"x.{body}.y"


def event(number):
    return (float(number), "admission", "rate", 1.0)


def test_the_last_refusals_and_closes_of_a_device_are_kept():
    kept = DeviceMemory()
    for number in range(10):
        kept.refused(b"a", event(number))
        kept.refused(b"b", event(100))
        kept.closed(b"a", event(number))
    newest = [event(number) for number in range(9, 9 - memory.EVENTS_MAX, -1)]
    assert kept.refusals(b"a") == kept.closes(b"a") == newest
    assert kept.refusals(b"c") == kept.closes(b"c") == []


def test_the_number_of_refusals_and_closes_is_bounded():
    kept = DeviceMemory()
    kept.refused(b"first", REFUSED)
    kept.closed(b"first", REFUSED)
    for _ in range(memory.REFUSALS_MAX):
        kept.refused(b"a", REFUSED)
        kept.closed(b"a", REFUSED)
    assert kept.refusals(b"first") == kept.closes(b"first") == []


def test_a_device_that_knocks_too_often_displaces_no_other():
    kept = DeviceMemory()
    kept.refused(b"quiet", event(0))
    kept.refused(b"loud", event(1))
    for number in range(memory.REFUSALS_MAX + 1):
        kept.knocked_too_often(b"loud", (2.0 + number, "device_rate", "", 1.0))
    assert kept.refusals(b"quiet") == [event(0)]
    assert {error for _, error, _, _ in kept.refusals(b"loud")} == {"device_rate"}


def test_an_unverified_token_is_read_at_the_look_up():
    kept = DeviceMemory()
    kept.refused_claim(token({"sub": "veh-1", "tenant": "acme"}), event(1))
    kept.refused_claim(token({"sub": "veh-1"}), event(2))
    kept.refused_claim(token({"sub": "veh-1", "tenant": "acme"}), event(3))
    assert kept.claims("acme", "veh-1") == [event(3), event(1)]
    assert kept.claims("default", "veh-1") == [event(2)]
    assert kept.claims("acme", "veh-2") == []


def test_forged_tokens_push_nothing_verified_out_and_are_bounded():
    kept = DeviceMemory()
    kept.refused(b"a", REFUSED)
    kept.refused_claim(token({"sub": "first"}), event(0))
    for number in range(memory.CLAIMS_MAX):
        kept.refused_claim(token({"sub": "veh-1"}), event(number))
    assert kept.refusals(b"a") == [REFUSED]
    assert kept.claims("default", "first") == []
    assert len(kept.claims("default", "veh-1")) == memory.EVENTS_MAX
    kept.refused_claim(token({"sub": "long", "more": "x" * memory.CLAIM_CHARS_MAX}), event(1))
    assert kept.claims("default", "long") == []


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "a.b",
        "a.b.c",
        "a.!!!.c",
        "a.é.c",
        token([]),
        token({}),
        token({"sub": {"a": 1}}),
        token({"sub": "veh-1", "tenant": ["x"]}),
        "x." + base64.urlsafe_b64encode(b"[" * 700).decode() + ".y",
        "x." + base64.urlsafe_b64encode(b"\xff\xfe").decode() + ".y",
    ],
)
def test_what_is_no_token_claims_nothing(text):
    kept = DeviceMemory()
    kept.refused_claim(text, REFUSED)
    assert kept.claims("default", "veh-1") == []
