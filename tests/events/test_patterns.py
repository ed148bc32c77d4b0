"""The pattern language: what EventBridge's documentation says of `detail` holds for `data`."""

import json

import pytest

from gateway.events.event import Event
from gateway.events.explaining import first_failure
from gateway.events.matching import compiled, facts_of
from gateway.events.patterns import parse_pattern

EVENT = {
    "tenant": "acme",
    "device": "veh-7",
    "type": "battery.low",
    "time": "2026-11-25T10:00:00Z",
}


def matches(pattern, data, **members):
    facts = EVENT | {"data": data} | members
    parsed = parse_pattern(pattern)
    matched = compiled(parsed)(facts)
    assert (first_failure(parsed, facts) is None) == matched
    return matched


# data of the pattern, data of the event, whether it matches
CASES = [
    # a literal
    ({"state": ["low"]}, {"state": "low"}, True),
    ({"state": ["low"]}, {"state": "lower"}, False),
    ({"state": ["low"]}, {"state": "LOW"}, False),
    ({"state": ["low", "empty"]}, {"state": "empty"}, True),
    ({"state": ["low", "empty"]}, {"state": "full"}, False),
    ({"state": ["low"]}, {}, False),
    ({"state": ["low"]}, {"State": "low"}, False),
    ({"a": ["x"], "b": ["y"]}, {"a": "x", "b": "y"}, True),
    ({"a": ["x"], "b": ["y"]}, {"a": "x", "b": "z"}, False),
    ({"a": ["x"], "b": ["y"], "c": ["z"]}, {"a": "x", "b": "y", "c": "z"}, True),
    ({"a": ["x"], "b": ["y"], "c": ["z"]}, {"a": "x", "b": "y", "c": "y"}, False),
    ({"a": ["x"]}, {"a": "x", "more": 1}, True),
    # numbers, true, false
    ({"n": [300]}, {"n": 300}, True),
    ({"n": [300]}, {"n": 300.0}, True),
    ({"n": [3e2]}, {"n": 300}, True),
    ({"n": [300]}, {"n": "300"}, False),
    ({"n": ["300"]}, {"n": 300}, False),
    ({"n": [1]}, {"n": True}, False),
    ({"n": [True]}, {"n": 1}, False),
    ({"n": [True]}, {"n": True}, True),
    ({"n": [False]}, {"n": 0}, False),
    ({"n": [False]}, {"n": False}, True),
    ({"n": [1, "a", None]}, {"n": 1}, True),
    ({"n": [9007199254740993]}, {"n": 9007199254740992}, False),
    # null and the empty string
    ({"a": [None]}, {"a": None}, True),
    ({"a": [None]}, {}, False),
    ({"a": [None]}, {"a": ""}, False),
    ({"a": [""]}, {"a": ""}, True),
    ({"a": [""]}, {"a": None}, False),
    ({"a": [""]}, {"a": " "}, False),
    ({"a": ["null"]}, {"a": None}, False),
    # arrays of the event
    ({"tags": ["a"]}, {"tags": ["b", "a"]}, True),
    ({"tags": ["a", "c"]}, {"tags": ["b", "c"]}, True),
    ({"tags": ["a"]}, {"tags": ["b"]}, False),
    ({"tags": ["a"]}, {"tags": []}, False),
    ({"tags": ["a"]}, {"tags": [["a"]]}, True),
    ({"tags": [{"prefix": "x-"}]}, {"tags": [1, None, "x-1"]}, True),
    ({"cells": {"v": [3]}}, {"cells": [{"v": 2}, {"v": 3}]}, True),
    ({"cells": {"v": [3]}}, {"cells": [{"v": 2}, 3]}, False),
    ({"cells": {"v": [3], "n": [1]}}, {"cells": [{"v": 3, "n": 2}, {"v": 1, "n": 1}]}, False),
    ({"cells": {"v": [3], "n": [2]}}, {"cells": [{"v": 3, "n": 2}, {"v": 1, "n": 1}]}, True),
    ({"cells": {"v": [3]}}, {"cells": [[{"v": 3}]]}, True),
    # objects
    ({"pos": {"lat": [1]}}, {"pos": {"lat": 1, "lon": 2}}, True),
    ({"pos": {"lat": [1]}}, {"pos": 1}, False),
    ({"pos": {"lat": [1]}}, {}, False),
    ({"pos": ["x"]}, {"pos": {"x": "x"}}, False),
    ({"pos": {"in": {"deep": ["x"]}}}, {"pos": {"in": {"deep": "x"}}}, True),
    # prefix, suffix
    ({"s": [{"prefix": "us-"}]}, {"s": "us-east"}, True),
    ({"s": [{"prefix": "us-"}]}, {"s": "eu-us-"}, False),
    ({"s": [{"prefix": "us-"}]}, {"s": "US-east"}, False),
    ({"s": [{"prefix": "1"}]}, {"s": 12}, False),
    ({"s": [{"prefix": {"equals-ignore-case": "EventB"}}]}, {"s": "eventbridge"}, True),
    ({"s": [{"prefix": {"equals-ignore-case": "EventB"}}]}, {"s": "event"}, False),
    ({"s": [{"suffix": ".png"}]}, {"s": "a.png"}, True),
    ({"s": [{"suffix": ".png"}]}, {"s": "a.PNG"}, False),
    ({"s": [{"suffix": {"equals-ignore-case": "tBridge"}}]}, {"s": "EVENTBRIDGE"}, True),
    ({"s": [{"suffix": {"equals-ignore-case": "tBridge"}}]}, {"s": 7}, False),
    # equals-ignore-case
    ({"s": [{"equals-ignore-case": "alice"}]}, {"s": "ALICE"}, True),
    ({"s": [{"equals-ignore-case": "alice"}]}, {"s": "alicea"}, False),
    ({"s": [{"equals-ignore-case": "ΣΊΣΥΦΟΣ"}]}, {"s": "σίσυφος"}, True),
    ({"s": [{"equals-ignore-case": "1"}]}, {"s": 1}, False),
    # anything-but
    ({"s": [{"anything-but": "init"}]}, {"s": "run"}, True),
    ({"s": [{"anything-but": "init"}]}, {"s": "init"}, False),
    ({"s": [{"anything-but": "init"}]}, {}, False),
    ({"s": [{"anything-but": "init"}]}, {"s": {"x": 1}}, False),
    ({"s": [{"anything-but": "init"}]}, {"s": []}, False),
    ({"s": [{"anything-but": "init"}]}, {"s": None}, True),
    ({"s": [{"anything-but": "init"}]}, {"s": ""}, True),
    ({"s": [{"anything-but": "init"}]}, {"s": 7}, True),
    ({"s": [{"anything-but": ["a", "b"]}]}, {"s": "b"}, False),
    ({"s": [{"anything-but": ["a", "b"]}]}, {"s": ["a", "b"]}, False),
    ({"s": [{"anything-but": ["a", "b"]}]}, {"s": ["a", "c"]}, True),
    ({"n": [{"anything-but": 123}]}, {"n": 123.0}, False),
    ({"n": [{"anything-but": [100, 200]}]}, {"n": 150}, True),
    ({"n": [{"anything-but": [100, 200]}]}, {"n": 200}, False),
    ({"n": [{"anything-but": 1}]}, {"n": True}, True),
    ({"s": [{"anything-but": {"prefix": "init"}}]}, {"s": "initial"}, False),
    ({"s": [{"anything-but": {"prefix": "init"}}]}, {"s": "run"}, True),
    ({"s": [{"anything-but": {"prefix": ["a", "b"]}}]}, {"s": "bx"}, False),
    ({"s": [{"anything-but": {"suffix": ".png"}}]}, {"s": "x.png"}, False),
    ({"s": [{"anything-but": {"suffix": [".png", ".jpg"]}}]}, {"s": "x.gif"}, True),
    ({"s": [{"anything-but": {"equals-ignore-case": "INIT"}}]}, {"s": "init"}, False),
    ({"s": [{"anything-but": {"equals-ignore-case": ["A", "B"]}}]}, {"s": "c"}, True),
    ({"s": [{"anything-but": {"wildcard": "*/lib/*"}}]}, {"s": "/a/lib/b"}, False),
    ({"s": [{"anything-but": {"wildcard": ["*/lib/*", "x*"]}}]}, {"s": "/a/b"}, True),
    ({"s": [{"anything-but": {"prefix": "init"}}]}, {"s": 7}, True),
    # numeric
    ({"n": [{"numeric": ["=", 100]}]}, {"n": 1e2}, True),
    ({"n": [{"numeric": ["=", 100]}]}, {"n": 100.1}, False),
    ({"n": [{"numeric": [">", 10, "<=", 20]}]}, {"n": 10}, False),
    ({"n": [{"numeric": [">", 10, "<=", 20]}]}, {"n": 10.0001}, True),
    ({"n": [{"numeric": [">", 10, "<=", 20]}]}, {"n": 20}, True),
    ({"n": [{"numeric": [">", 10, "<=", 20]}]}, {"n": 20.5}, False),
    ({"n": [{"numeric": ["<", 20, ">=", 10]}]}, {"n": 10}, True),
    ({"n": [{"numeric": ["<", 0]}]}, {"n": -1}, True),
    ({"n": [{"numeric": ["<", 0]}]}, {"n": 0}, False),
    ({"n": [{"numeric": ["<=", 0]}]}, {"n": 0}, True),
    ({"n": [{"numeric": [">", 0]}]}, {"n": "5"}, False),
    ({"n": [{"numeric": [">", 0]}]}, {"n": True}, False),
    ({"n": [{"numeric": [">=", 5]}]}, {"n": 5}, True),
    ({"n": [{"numeric": [">", 5e9]}]}, {"n": 6e9}, True),
    ({"n": [{"numeric": [">", 0]}]}, {"n": [-1, 1]}, True),
    ({"n": [{"numeric": [">", 0]}]}, {"n": None}, False),
    # exists
    ({"n": [{"exists": True}]}, {"n": None}, True),
    ({"n": [{"exists": True}]}, {"n": ""}, True),
    ({"n": [{"exists": True}]}, {}, False),
    ({"n": [{"exists": True}]}, {"n": {"x": 1}}, False),
    ({"n": [{"exists": False}]}, {}, True),
    ({"n": [{"exists": False}]}, {"n": {"x": 1}}, True),
    ({"n": [{"exists": False}]}, {"n": None}, False),
    ({"n": [{"exists": False}]}, {"n": []}, True),
    ({"n": [{"exists": False}, "a"]}, {"n": "a"}, True),
    ({"n": [{"exists": False}, "a"]}, {"n": "b"}, False),
    ({"p": {"n": [{"exists": False}]}}, {}, True),
    ({"p": {"n": [{"exists": False}]}}, {"p": {"n": 1}}, False),
    ({"p": {"n": [{"exists": False}]}}, {"p": 7}, True),
    # cidr
    ({"ip": [{"cidr": "10.0.0.0/24"}]}, {"ip": "10.0.0.255"}, True),
    ({"ip": [{"cidr": "10.0.0.0/24"}]}, {"ip": "10.0.1.0"}, False),
    ({"ip": [{"cidr": "10.0.0.0/24"}]}, {"ip": "no address"}, False),
    ({"ip": [{"cidr": "10.0.0.0/24"}]}, {"ip": 167772161}, False),
    ({"ip": [{"cidr": "10.0.0.0/24"}]}, {"ip": "::1"}, False),
    ({"ip": [{"cidr": "2001:db8::/32"}]}, {"ip": "2001:db8::7"}, True),
    ({"ip": [{"cidr": "0.0.0.0/0"}]}, {"ip": "255.1.2.3"}, True),
    # wildcard
    ({"s": [{"wildcard": "dir/*.png"}]}, {"s": "dir/a.png"}, True),
    ({"s": [{"wildcard": "dir/*.png"}]}, {"s": "dir/.png"}, True),
    ({"s": [{"wildcard": "dir/*.png"}]}, {"s": "other/a.png"}, False),
    ({"s": [{"wildcard": "dir/*.png"}]}, {"s": "dir/a.jpg"}, False),
    ({"s": [{"wildcard": "*a*b*"}]}, {"s": "xxaxxbxx"}, True),
    ({"s": [{"wildcard": "*a*b*"}]}, {"s": "ba"}, False),
    ({"s": [{"wildcard": "ab*ba"}]}, {"s": "aba"}, False),
    ({"s": [{"wildcard": "a*b*a"}]}, {"s": "aa"}, False),
    ({"s": [{"wildcard": "a\\*b"}]}, {"s": "a*b"}, True),
    ({"s": [{"wildcard": "a\\*b"}]}, {"s": "axb"}, False),
    ({"s": [{"wildcard": "a\\\\*"}]}, {"s": "a\\x"}, True),
    ({"s": [{"wildcard": "*"}]}, {"s": ""}, True),
    ({"s": [{"wildcard": "*"}]}, {"s": 7}, False),
    # $or
    ({"$or": [{"a": [1]}, {"b": [2]}]}, {"b": 2}, True),
    ({"$or": [{"a": [1]}, {"b": [2]}]}, {"a": 2, "b": 1}, False),
    ({"c": [3], "$or": [{"a": [1]}, {"b": [2]}]}, {"a": 1, "c": 3}, True),
    ({"c": [3], "$or": [{"a": [1]}, {"b": [2]}]}, {"a": 1}, False),
    ({"$or": [{"a": [1], "b": [2]}, {"c": [3]}]}, {"a": 1}, False),
    ({"$or": [{"a": [1], "$or": [{"b": [2]}, {"c": [3]}]}, {"d": [4]}]}, {"a": 1, "c": 3}, True),
    ({"$or": [{"a": [{"exists": False}]}, {"b": [2]}]}, {}, True),
    ({"cells": {"$or": [{"v": [1]}, {"n": [1]}]}}, {"cells": [{"v": 2}, {"n": 1}]}, True),
]


@pytest.mark.parametrize(("wanted", "data", "expected"), CASES)
def test_what_data_matches(wanted, data, expected):
    assert matches({"data": wanted}, data) is expected
    assert matches(json.dumps({"data": wanted}), data) is expected


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ({"type": ["battery.low"]}, True),
        ({"type": [{"prefix": "battery."}], "tenant": ["acme"]}, True),
        ({"device": [{"wildcard": "veh-*"}]}, True),
        ({"device": [{"anything-but": "veh-7"}]}, False),
        ({"time": [{"prefix": "2026-11-25"}]}, True),
        ({"time": [{"exists": False}]}, False),
        ({"$or": [{"type": ["door"]}, {"tenant": ["acme"]}]}, True),
        ({"data": ["x"]}, False),
    ],
)
def test_the_members_of_an_event(pattern, expected):
    assert matches(pattern, {"soc": 1}) is expected


def test_data_that_is_no_object():
    assert matches({"data": [7]}, 7)
    assert matches({"data": {"v": [7]}}, [{"v": 7}])
    assert not matches({"data": {"v": [7]}}, "v")


def facts(data, headers=b"NATS/1.0\r\nce-time:2026-11-25T10:00:00Z\r\n\r\n"):
    return facts_of(Event("events.acme.veh-7.battery.low", headers, data, 1, 0))


def test_facts_of_a_stored_event():
    assert facts(b'{"soc":7}') == EVENT | {"data": {"soc": 7}}


@pytest.mark.parametrize("data", [b"", b"{", b"\xff", b"[" * 5_000])
def test_data_that_is_no_json_is_absent(data):
    assert "data" not in facts(data)


def test_a_number_beyond_a_double_is_infinite():
    assert compiled(parse_pattern({"data": [{"numeric": [">", 1]}]}))(facts(b"1e999"))


def test_a_time_that_nobody_said_is_absent():
    assert "time" not in facts(b"1", headers=b"")


def test_two_bounds_that_meet_are_one_number():
    assert matches({"data": {"n": [{"numeric": [">=", 5, "<=", 5]}]}}, {"n": 5.0})


def said(pattern, data):
    return str(first_failure(parse_pattern(pattern), EVENT | {"data": data}))


@pytest.mark.parametrize(
    ("pattern", "data", "expected"),
    [
        (
            {"type": ["battery.low"], "data": {"soc": [{"numeric": ["<", 20]}]}},
            {"soc": 35},
            'data.soc: [{"numeric": ["<", 20]}] does not hold for 35',
        ),
        ({"type": ["door"]}, {}, 'type: ["door"] does not hold for "battery.low"'),
        ({"data": {"a": ["x"]}}, {}, 'data.a: ["x"] does not hold for a member that is absent'),
        ({"data": {"a": ["x"]}}, {"a": {}}, "an object, which has no value of its own"),
        ({"data": {"a": ["x"]}}, {"a": []}, "an array without values"),
        ({"data": {"a": {"b": ["x"]}}}, {"a": [{"b": 1}, {"b": 2}]}, "data.a[0].b"),
        ({"data": {"a": {"b": ["x"]}}}, {"a": [{"b": 1}, {"b": 2}]}, "any of 2 objects"),
        ({"data": {"a": {"b": ["x"]}}}, {"a": 7}, "data.a.b"),
        ({"$or": [{"type": ["x"]}, {"tenant": ["y"]}]}, {}, "(1) type: "),
        ({"data": {"$or": [{"a": ["x"]}, {"b": ["y"]}]}}, {}, "data.$or: one of 2 patterns"),
        ({"data": {"a": ["x"]}}, {"a": "y" * 200}, "yyy..."),
    ],
)
def test_the_first_condition_that_does_not_hold_is_named(pattern, data, expected):
    assert expected in said(pattern, data)
