"""Whatever the order in which presence facts arrive, the highest fence is the truth."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.session.presence import (
    Fact,
    Truth,
    cause_of,
    document_of,
    newer,
    payload_of,
    read_fact,
)


def fact(fence, online, device="veh-1", node="n1", cause="connected", time=0.0):
    return Fact("default", device, online, f"s{fence}", fence, cause, node, time, "depot")


def test_a_fact_is_read_as_it_was_written():
    written = fact(7, True, time=1_764_000_000.125)
    assert read_fact("presence.default.veh-1", payload_of(written)) == written
    assert json.loads(payload_of(written)) == {
        "online": True,
        "session": "s7",
        "fence": 7,
        "cause": "connected",
        "node": "n1",
        "time": "2025-11-24T16:00:00.125Z",
        "group": "depot",
    }


@given(st.integers(0, 4_000_000_000_000))
def test_the_time_of_a_fact_is_told_to_the_millisecond(unix_ms):
    read = read_fact("presence.default.veh-1", payload_of(fact(7, True, time=unix_ms / 1_000)))
    assert read is not None
    assert round(read.time * 1_000) == unix_ms


def test_the_id_of_a_fact_is_that_of_its_session_and_state():
    assert fact(7, True).message_id == "default:veh-1:7:online"
    assert fact(7, True).ended("lost", 1.0, "n2").message_id == "default:veh-1:7:offline"


@pytest.mark.parametrize(
    ("subject", "payload"),
    [
        ("presence.default", b"{}"),
        ("presence.default.veh-1.more", payload_of(fact(1, True))),
        ("presence.default.veh 1", payload_of(fact(1, True))),
        ("presence.default.veh-1", b"\xff"),
        ("presence.default.veh-1", b"[1]"),
        ("presence.default.veh-1", payload_of(fact(1, True)).replace(b'"fence":1', b'"fence":""')),
        ("presence.default.veh-1", payload_of(fact(1, True)).replace(b"1970", b"soon")),
        ("presence.default.veh-1", payload_of(fact(1, True, node="\x1b[2J"))),
        ("presence.default.veh-1", payload_of(fact(1, True, cause="\x1b[2J"))),
    ],
)
def test_what_is_no_fact_is_ignored(subject, payload):
    assert read_fact(subject, payload) is None


@pytest.mark.parametrize(
    ("label", "code", "drained", "cause"),
    [
        ("device", 1000, False, "closed 1000"),
        ("device", 1006, False, "lost"),
        ("device", 1000, True, "drained"),
        ("lost", 1006, True, "drained"),
        ("taken_over", 4409, True, "taken_over"),
        ("half_open", 1006, False, "lost"),
        ("slow_reader", 1006, False, "lost"),
        ("credential", 4401, False, "expired"),
        ("revoked", 4403, False, "revoked"),
        ("drain", 1012, True, "drained"),
        ("stopped", 1006, False, "drained"),
        ("disconnect", 1012, False, "closed 1012"),
        ("gap", 1008, False, "closed 1008"),
    ],
)
def test_the_cause_is_of_a_fixed_set_or_has_the_close_code(label, code, drained, cause):
    assert cause_of(label, code, drained=drained) == cause


def test_the_end_of_a_session_comes_after_its_beginning_and_before_a_newer_session():
    assert newer(fact(1, False), fact(1, True))
    assert not newer(fact(1, True), fact(1, False))
    assert newer(fact(2, True), fact(1, False))
    assert not newer(fact(1, True), fact(1, True))


@given(st.lists(st.tuples(st.integers(1, 9), st.booleans()), min_size=1), st.randoms())
def test_the_truth_does_not_depend_on_the_order_of_facts(states, rng):
    facts = [fact(fence, online) for fence, online in states]
    expected = max(facts, key=lambda each: (each.fence, not each.online))
    rng.shuffle(facts)
    truth = Truth()
    for each in facts:
        truth.take(each)
    found = truth.of(("default", "veh-1"))
    assert (found.fence, found.online) == (expected.fence, expected.online)


def test_the_document_of_a_fact_names_its_device():
    assert document_of(fact(3, False))["device"] == "veh-1"


def test_the_truth_is_asked_by_device_and_by_node():
    truth = Truth()
    for device, online, node in (("a", True, "n1"), ("b", False, "n1"), ("c", True, "n2")):
        assert truth.take(fact(3, online, device, node))
    assert len(truth) == len(list(truth)) == 3
    assert truth.of(("default", "a")) == fact(3, True, "a", "n1")
    assert truth.of(("default", "x")) is None
    assert [each.device for each in truth.online_at(frozenset({"n1", "n9"}))] == ["a"]
    assert fact(3, True, "a").subject == "presence.default.a"
