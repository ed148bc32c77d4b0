"""Overrides of settings: the newest wins, and each ends by itself."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.cluster.overrides import Override, Overrides, parse_override, render_override


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


def rate(value=200.0, until=160.0, **more):
    return Override("rate_per_s", value, until, **more)


def test_an_override_holds_until_its_end():
    clock = Clock()
    known = Overrides(clock)
    fact = known.state(rate(by="alice"))
    assert (fact.at, fact.by) == (100.0, "alice")
    assert known.in_force() == {"rate_per_s": fact}
    clock.now = 160.0
    assert known.in_force() == {}
    assert known.facts() == [fact], "other nodes must learn that it is the newest"


def test_undoing_it_is_newer_also_within_a_moment():
    known, other = Overrides(Clock()), Overrides(Clock())
    first = known.state(rate())
    last = known.state(rate(lifted=True))
    assert last.at > first.at
    for order in ([first, last], [last, first]):
        other.learn(order)
        assert other.in_force() == {}


def test_the_newest_of_two_nodes_wins_in_any_order():
    older, newer = rate(200.0, at=1.0), rate(300.0, at=2.0)
    for order in ([older, newer], [newer, older]):
        known = Overrides(Clock())
        known.learn(order)
        assert known.in_force()["rate_per_s"] is newer


@given(st.floats(0.1, 1e5), st.floats(0, 1e12), st.floats(0, 1e12), st.text(), st.booleans())
def test_a_fact_is_read_as_it_was_written(value, until, at, by, lifted):
    for fact in (
        Override("burst", value, until, at, by, lifted),
        Override("log_level", "debug", until, at, by, lifted),
    ):
        assert parse_override(render_override(fact)) == fact


GOOD = {"name": "rate_per_s", "value": 5, "until": 1, "at": 1, "by": "a", "lifted": False}


@pytest.mark.parametrize(
    "change",
    [
        {"name": "nats.password"},
        {"name": ["rate_per_s"]},
        {"value": 0},
        {"value": "fast"},
        {"value": float("nan")},
        {"value": None},
        {"name": "log_level", "value": "loud"},
        {"name": "log_level", "value": []},
        {"until": float("inf")},
        {"at": "now"},
        {"by": None, "at": None},
    ],
)
def test_what_no_node_could_obey_is_none(change):
    import json  # used here only

    assert parse_override(json.dumps({**GOOD, **change})) is None
    assert parse_override(json.dumps(GOOD)) == Override("rate_per_s", 5.0, 1.0, 1.0, "a")


@pytest.mark.parametrize("text", ["", "[]", "1", "{}", "[" * 100_000])
def test_what_is_no_fact_is_none(text):
    assert parse_override(text) is None
