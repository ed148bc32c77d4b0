"""Compiled patterns against a slow, plain interpreter that shares no code with them."""

import fnmatch
import ipaddress
import re

from hypothesis import given
from hypothesis import strategies as st

from gateway.events.explaining import first_failure
from gateway.events.filters import subjects, types_of
from gateway.events.matching import compiled
from gateway.events.patterns import parse_pattern
from gateway.events.rule_index import RuleIndex

MISSING = object()


def values_of(value):
    """What an array is crushed to; nothing for an object, or for what is missing."""
    if value is MISSING or isinstance(value, dict):
        return []
    if isinstance(value, list):
        return [inner for each in value for inner in values_of(each)]
    return [value]


def objects_of(value):
    if isinstance(value, dict):
        return [value]
    if isinstance(value, list):
        return [inner for each in value for inner in objects_of(each)]
    return []


def interpret(pattern, members):
    for name, wanted in pattern.items():
        if name == "$or":
            if not any(interpret(branch, members) for branch in wanted):
                return False
        elif isinstance(wanted, dict):
            found = objects_of(members.get(name, MISSING)) or [{}]
            if not any(interpret(wanted, each) for each in found):
                return False
        else:
            found = values_of(members.get(name, MISSING))
            if not any(holds(each, found) for each in wanted):
                return False
    return True


def holds(condition, found):
    if condition == {"exists": False}:
        return not found
    return any(holds_for(condition, value) for value in found)


def is_number(value):
    return isinstance(value, int | float) and not isinstance(value, bool)


def equal(one, other):
    if is_number(one) or is_number(other):
        return is_number(one) and is_number(other) and one == other
    return type(one) is type(other) and one == other


def holds_for(condition, value):  # noqa: C901, PLR0911  # one branch and one return an operator
    if not isinstance(condition, dict):
        return equal(condition, value)
    ((name, argument),) = condition.items()
    if name == "exists":
        return True
    if name == "anything-but":
        if isinstance(argument, dict):
            ((inner, texts),) = argument.items()
            excluded = [{inner: text} for text in (texts if isinstance(texts, list) else [texts])]
        else:
            excluded = argument if isinstance(argument, list) else [argument]
        return not any(holds_for(each, value) for each in excluded)
    if name == "numeric":
        return is_number(value) and all(
            {
                "=": value == bound,
                "<": value < bound,
                "<=": value <= bound,
                ">": value > bound,
                ">=": value >= bound,
            }[sign]
            for sign, bound in zip(argument[::2], argument[1::2], strict=True)
        )
    if not isinstance(value, str):
        return False
    if name == "cidr":
        try:
            return ipaddress.ip_address(value) in ipaddress.ip_network(argument)
        except ValueError:
            return False
    if name == "wildcard":
        return (
            re.fullmatch(".*".join(map(re.escape, argument.split("*"))), value, re.DOTALL)
            is not None
        )
    if isinstance(argument, dict):
        argument, value = argument["equals-ignore-case"].casefold(), value.casefold()
    if name == "equals-ignore-case":
        return value.casefold() == argument.casefold()
    return value.startswith(argument) if name == "prefix" else value.endswith(argument)


texts = st.text("aAb.", max_size=4)
some_text = st.text("aAb.", min_size=1, max_size=2)
numbers = st.integers(-2, 2) | st.sampled_from([0.5, 1.0, 2.0])
scalars = texts | numbers | st.booleans() | st.none() | st.sampled_from(["10.0.0.1", "10.0.1.1"])
wildcards = (
    st.lists(some_text | st.just(""), min_size=1, max_size=4)
    .map("*".join)
    .filter(lambda text: "**" not in text)
)
signs_low, signs_high = st.sampled_from([">", ">="]), st.sampled_from(["<", "<="])
affixes = some_text | some_text.map(lambda text: {"equals-ignore-case": text})
one_or_more = lambda each: each | st.lists(each, min_size=1, max_size=3)  # noqa: E731
conditions = st.one_of(
    scalars,
    affixes.map(lambda each: {"prefix": each}),
    affixes.map(lambda each: {"suffix": each}),
    texts.map(lambda each: {"equals-ignore-case": each}),
    wildcards.map(lambda each: {"wildcard": each}),
    st.booleans().map(lambda each: {"exists": each}),
    st.sampled_from(["10.0.0.0/24", "10.0.0.1/32"]).map(lambda each: {"cidr": each}),
    st.tuples(signs_low | signs_high | st.just("="), numbers).map(
        lambda pair: {"numeric": list(pair)}
    ),
    st.tuples(signs_low, st.integers(-3, 0), signs_high, st.integers(1, 3)).map(
        lambda both: {"numeric": list(both)}
    ),
    one_or_more(texts).map(lambda each: {"anything-but": each}),
    one_or_more(numbers).map(lambda each: {"anything-but": each}),
    st.sampled_from(["prefix", "suffix", "equals-ignore-case"]).flatmap(
        lambda name: one_or_more(some_text).map(lambda each: {"anything-but": {name: each}})
    ),
    one_or_more(wildcards).map(lambda each: {"anything-but": {"wildcard": each}}),
)
names = st.sampled_from(["a", "b"])
leaf = st.lists(conditions, min_size=1, max_size=3)
patterns = st.recursive(
    st.dictionaries(names, leaf, min_size=1, max_size=2),
    lambda inner: (
        st.dictionaries(names, leaf | inner, min_size=1, max_size=2)
        | st.tuples(
            st.dictionaries(names, leaf | inner, max_size=1),
            st.lists(inner, min_size=2, max_size=3),
        ).map(lambda both: both[0] | {"$or": both[1]})
    ),
    max_leaves=4,
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=2),
    max_leaves=6,
)


@given(patterns, values)
def test_a_compiled_pattern_agrees_with_the_plain_interpreter(pattern, data):
    wanted, facts = {"data": pattern}, {"type": "t", "data": data}
    parsed = parse_pattern(wanted)
    expected = interpret(wanted, facts)
    assert compiled(parsed)(facts) == expected
    assert (first_failure(parsed, facts) is None) == expected


@given(st.lists(patterns, max_size=6), values)
def test_an_index_finds_what_each_pattern_alone_would(written, data):
    found = {number: parse_pattern({"data": each}) for number, each in enumerate(written)}
    event = {"type": "t", "data": data}
    matching = RuleIndex(found).matching(event)
    assert sorted(matching) == [key for key, each in found.items() if compiled(each)(event)]


@given(wildcards, texts)
def test_a_wildcard_is_what_a_shell_means_by_it(wildcard, text):
    matched = compiled(parse_pattern({"data": [{"wildcard": wildcard}]}))({"data": text})
    assert matched == fnmatch.fnmatchcase(text, wildcard)


type_names = st.lists(st.sampled_from(["a", "ab", "b"]), min_size=1, max_size=3).map(".".join)
type_leaf = st.lists(
    type_names
    | type_names.map(lambda text: {"prefix": text + "."})
    | type_names.map(lambda text: {"prefix": text})
    | st.just("no type")
    | type_names.map(lambda text: {"anything-but": text}),
    min_size=1,
    max_size=3,
)
type_patterns = st.recursive(
    st.fixed_dictionaries({"type": type_leaf}) | st.just({"device": ["x"]}),
    lambda inner: st.tuples(
        st.just({}) | st.fixed_dictionaries({"type": type_leaf}),
        st.lists(inner, min_size=2, max_size=3),
    ).map(lambda both: both[0] | {"$or": both[1]}),
    max_leaves=4,
)


def admits(subject, message_type):
    pattern = subject.removeprefix("events.*.*.").removeprefix("events.")
    if pattern == ">":
        return True
    if pattern.endswith(">"):
        return message_type.startswith(pattern[:-1])
    return message_type == pattern


@given(type_patterns, type_names)
def test_the_filters_of_a_pattern_let_in_all_that_it_matches(pattern, message_type):
    parsed = parse_pattern(pattern)
    if compiled(parsed)({"type": message_type, "device": "x"}):
        wanted = subjects(types_of(parsed) or ())
        assert any(admits(subject, message_type) for subject in wanted)
