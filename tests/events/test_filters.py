import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.events.filters import is_type_pattern, reduced, subjects, types_of
from gateway.events.patterns import parse_pattern

types = st.lists(st.sampled_from(["a", "ab", "b", "c-d", "A"]), min_size=1, max_size=3).map(
    ".".join
)
patterns = types | types.map(lambda text: text + ".")


def matches(pattern, message_type):
    return message_type.startswith(pattern) if pattern.endswith(".") else message_type == pattern


@given(st.lists(patterns, max_size=6), types)
def test_reducing_changes_nothing_that_is_matched(wanted, message_type):
    before = any(matches(pattern, message_type) for pattern in wanted)
    assert any(matches(pattern, message_type) for pattern in reduced(wanted)) == before


@given(st.lists(patterns, max_size=6))
def test_what_is_left_does_not_overlap(wanted):
    left = reduced(wanted)
    for one in left:
        for other in left:
            covered = one.endswith(".") and other.startswith(one)
            assert one == other or not covered


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ([], ("events.>",)),
        (["battery.low"], ("events.*.*.battery.low",)),
        (["battery.", "battery.low", "door"], ("events.*.*.battery.>", "events.*.*.door")),
        (["battery", "battery."], ("events.*.*.battery", "events.*.*.battery.>")),
    ],
)
def test_subjects(wanted, expected):
    assert subjects(wanted) == expected


@pytest.mark.parametrize("text", ["", ".", "a..", "a..b", "a b", "*", ">", "a.>", "é"])
def test_what_is_no_pattern(text):
    assert not is_type_pattern(text)


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ({"type": ["a", "b.c"]}, ("a", "b.c")),
        ({"type": [{"prefix": "a."}, "a.b"]}, ("a.",)),
        ({"type": [{"prefix": "a"}]}, None),
        ({"type": [{"prefix": {"equals-ignore-case": "a."}}]}, None),
        ({"type": ["a", {"suffix": "b"}]}, None),
        ({"type": [7]}, None),
        ({"type": ["no type"]}, None),
        ({"device": ["a"]}, None),
        ({"$or": [{"type": ["a"]}, {"type": ["b"], "device": ["x"]}]}, ("a", "b")),
        ({"$or": [{"type": ["a"]}, {"device": ["x"]}]}, None),
        ({"type": ["c"], "$or": [{"type": ["a"]}, {"device": ["x"]}]}, ("c",)),
        ({"$or": [{"device": ["x"]}, {"type": ["a"]}], "data": {"type": ["z"]}}, None),
    ],
)
def test_the_types_of_a_pattern(pattern, expected):
    assert types_of(parse_pattern(pattern)) == expected
