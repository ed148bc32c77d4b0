"""What is wrong with a pattern is named with its place."""

from datetime import UTC, datetime

import pytest

from gateway.events.errors import PatternError
from gateway.events.patterns import CONDITIONS_MAX, DEPTH_MAX, PATTERN_CHARS_MAX, parse_pattern

# The pattern; the place of the offence; what is said.
OFFENCES = [
    (7, "", "a pattern is an object, not 7"),
    ("{", "", "a pattern in a string is JSON"),
    ("[" * 50_000, "", "a pattern in a string is JSON"),
    ('{"type": ["a"], "type": ["b"]}', "", "the member type is written twice"),
    ("{" + " " * PATTERN_CHARS_MAX, "", "longer than"),
    ("{" + " " * (PATTERN_CHARS_MAX - 1), "", "a pattern in a string is JSON"),
    ({}, "", "an empty object"),
    ({"typ": ["x"]}, ".typ", "did you mean type?"),
    ({"detail": {"x": [1]}}, ".detail", "did you mean data?"),
    ({"xyzzy": ["x"]}, ".xyzzy", "an event has tenant, device, type, time, data"),
    ({"type": {"x": [1]}}, ".type", "type is a string"),
    ({"type": "x"}, ".type", 'write an array of values: ["x"]'),
    ({"type": []}, ".type", "an empty array matches no event"),
    ({"data": {}}, ".data", "an empty object"),
    ({"data": {"a": {}}}, ".data.a", "an empty object"),
    ({"data": {"a": [["x"]]}}, ".data.a[0]", "an array stands in an array"),
    ({"data": {"a": [datetime(2026, 1, 1, tzinfo=UTC)]}}, ".data.a[0]", "no value of JSON"),
    ({"data": {"a": [float("nan")]}}, ".data.a[0]", "no number of JSON"),
    ({"data": {"a": [10**301]}}, ".data.a[0]", "digits"),
    ({"data": {"a": ["x" * 1_025]}}, ".data.a[0]", "longer than"),
    ({"data": {"a": [1, {"prefx": "x"}]}}, ".data.a[1]", "prefx; did you mean prefix?"),
    ({"data": {"a": [{"contains": "x"}]}}, ".data.a[0]", "did you mean wildcard"),
    ({"data": {"a": [{"zzz": "x"}]}}, ".data.a[0]", "there are prefix, suffix"),
    ({"data": {"a": [{"prefix": "x", "suffix": "y"}]}}, ".data.a[0]", "one operator"),
    ({"data": {"a": [{}]}}, ".data.a[0]", "one operator"),
    ({"data": {"a": [{"prefix": 7}]}}, ".data.a[0].prefix", "it takes a string, not 7"),
    ({"data": {"a": [{"prefix": ""}]}}, ".data.a[0].prefix", "holds for every string"),
    (
        {"data": {"a": [{"prefix": {"equals-ignorecase": "x"}}]}},
        ".data.a[0].prefix",
        "did you mean equals-ignore-case?",
    ),
    ({"data": {"a": [{"suffix": ["x"]}]}}, ".data.a[0].suffix", "it takes a string"),
    ({"data": {"a": [{"exists": 1}]}}, ".data.a[0].exists", "it takes true or false"),
    ({"data": {"a": [{"cidr": "10.0.0.1"}]}}, ".data.a[0].cidr", "it takes a network"),
    ({"data": {"a": [{"cidr": "10.0.0.1/24"}]}}, ".data.a[0].cidr", "did you mean 10.0.0.0/24?"),
    ({"data": {"a": [{"cidr": "10.0.0/24"}]}}, ".data.a[0].cidr", "10.0.0"),
    ({"data": {"a": [{"wildcard": "a**"}]}}, ".data.a[0].wildcard", "side by side"),
    ({"data": {"a": [{"wildcard": "a\\b"}]}}, ".data.a[0].wildcard", "a backslash stands before"),
    ({"data": {"a": [{"wildcard": "a\\"}]}}, ".data.a[0].wildcard", "a backslash stands before"),
    ({"data": {"a": [{"wildcard": "a*" * 17}]}}, ".data.a[0].wildcard", "more than 16 times *"),
    ({"data": {"a": [{"wildcard": "a" * 513}]}}, ".data.a[0].wildcard", "longer than 512"),
    ({"data": {"a": [{"numeric": []}]}}, ".data.a[0].numeric", "by turns"),
    ({"data": {"a": [{"numeric": ">5"}]}}, ".data.a[0].numeric", "by turns"),
    ({"data": {"a": [{"numeric": [">"]}]}}, ".data.a[0].numeric", "by turns"),
    ({"data": {"a": [{"numeric": ["!=", 5]}]}}, ".data.a[0].numeric[0]", "write anything-but"),
    ({"data": {"a": [{"numeric": [5, ">"]}]}}, ".data.a[0].numeric[0]", "is none of"),
    ({"data": {"a": [{"numeric": [">", "5"]}]}}, ".data.a[0].numeric[1]", "it takes a number"),
    ({"data": {"a": [{"numeric": [">", True]}]}}, ".data.a[0].numeric[1]", "it takes a number"),
    ({"data": {"a": [{"numeric": [">", 1, ">", 2]}]}}, ".data.a[0].numeric[2]", "one lower bound"),
    ({"data": {"a": [{"numeric": ["=", 1, "<", 2]}]}}, ".data.a[0].numeric[2]", "one lower bound"),
    ({"data": {"a": [{"numeric": [">", 1] * 3}]}}, ".data.a[0].numeric", "more than two"),
    ({"data": {"a": [{"numeric": [">", 5, "<", 5]}]}}, ".data.a[0].numeric", "no number is in"),
    ({"data": {"a": [{"numeric": [">=", 5, "<", 5]}]}}, ".data.a[0].numeric", "no number is in"),
    ({"data": {"a": [{"numeric": [">", 9, "<", 5]}]}}, ".data.a[0].numeric", "no number is in"),
    ({"data": {"a": [{"anything-but": []}]}}, ".data.a[0].anything-but", "excludes nothing"),
    ({"data": {"a": [{"anything-but": None}]}}, ".data.a[0].anything-but", "strings or numbers"),
    ({"data": {"a": [{"anything-but": [True]}]}}, ".data.a[0].anything-but[0]", "or numbers"),
    ({"data": {"a": [{"anything-but": [1, "a"]}]}}, ".data.a[0].anything-but[1]", "only strings"),
    ({"data": {"a": [{"anything-but": ["a", 1]}]}}, ".data.a[0].anything-but[1]", "only strings"),
    ({"data": {"a": [{"anything-but": ["a"] * 201}]}}, ".data.a[0].anything-but", "more than 200"),
    ({"data": {"a": [{"anything-but": {"cidr": "x"}}]}}, ".data.a[0].anything-but", "there are"),
    (
        {"data": {"a": [{"anything-but": {"prefix": {"equals-ignore-case": "x"}}}]}},
        ".data.a[0].anything-but.prefix",
        "it takes a string",
    ),
    ({"$or": {"type": ["a"]}}, ".$or", "two or more patterns"),
    ({"$or": [{"type": ["a"]}]}, ".$or", "two or more patterns"),
    ({"$or": [{"type": ["a"]}, 7]}, ".$or[1]", "a pattern is an object"),
    ({"$or": [{"type": ["a"]}, {"kind": ["b"]}]}, ".$or[1].kind", "did you mean type?"),
    ({"data": {"$or": [{"a": ["a"]}, {"b": "b"}]}}, ".data.$or[1].b", "write an array"),
    ({"type": ["a"] * (CONDITIONS_MAX + 1)}, ".type", "more than 500 conditions"),
]


@pytest.mark.parametrize(("pattern", "place", "said"), OFFENCES)
def test_an_offence_is_named_with_its_place(pattern, place, said):
    with pytest.raises(PatternError) as caught:
        parse_pattern(pattern)
    assert caught.value.place == place
    assert said in caught.value.detail
    assert str(caught.value).startswith(place.removeprefix("."))


def test_a_pattern_that_is_too_deep():
    pattern = {"a": ["x"]}
    for _ in range(DEPTH_MAX):
        pattern = {"a": pattern}
    with pytest.raises(PatternError, match="deeper than"):
        parse_pattern({"data": pattern})
