import pytest

from clients.conformance.errors import Mismatch, ScriptError
from clients.conformance.pattern import check, fill


@pytest.mark.parametrize(
    ("pattern", "value"),
    [
        ({"ack": 1}, {"ack": 1}),
        (
            {"a": "$int", "b": "$text", "c": "$any", "d": "$object"},
            {"a": 1, "b": "", "c": [], "d": {}},
        ),
        ({"a": 1, "$may": ["b", "c"]}, {"a": 1, "c": 2}),
        ([1, {"a": "$any"}], [1, {"a": None}]),
        (None, None),
    ],
)
def test_patterns_that_match(pattern, value):
    check(pattern, value, {})


@pytest.mark.parametrize(
    ("pattern", "value"),
    [
        ({"ack": 1}, {"ack": 2}),
        ({"ack": 1}, {"ack": True}),
        ({"ack": 1}, {"ack": 1.0}),
        ({"ack": 1}, {"ack": 1, "more": 2}),
        ({"ack": 1, "more": 2}, {"ack": 1}),
        ({"a": "$int"}, {"a": True}),
        ({"a": "$text"}, {"a": 1}),
        ([1], [1, 2]),
        ({"a": 1}, [1]),
    ],
)
def test_patterns_that_do_not_match_raise(pattern, value):
    with pytest.raises(Mismatch):
        check(pattern, value, {})


def test_values_have_names():
    names = {}
    check({"outbox": {"$save": "box"}}, {"outbox": "x"}, names)
    check({"outbox": {"$is": "box"}}, {"outbox": "x"}, names)
    check({"outbox": {"$not": "box"}}, {"outbox": "y"}, names)
    with pytest.raises(Mismatch, match="box"):
        check({"$is": "box"}, "y", names)
    with pytest.raises(Mismatch, match="anything but"):
        check({"$not": "box"}, "x", names)
    with pytest.raises(ScriptError, match="crate"):
        check({"$is": "crate"}, "x", names)
    assert fill({"ack": {"$is": "box"}, "list": [1, {"$is": "box"}]}, names) == {
        "ack": "x",
        "list": [1, "x"],
    }
