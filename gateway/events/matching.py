"""Patterns as functions: does an event match?

An event is a dict of its members (`facts_of`). A function of a pattern is made of closures, one a
member, so that a condition costs about 0.1 us. What they agree on:

1. An array of the event is its elements, and those of arrays in it: one of them must satisfy a
   condition, and one object of them must match a whole inner pattern.
2. A member that is absent, or holds an object or an empty array where conditions stand, has no
   value: only `{"exists": false}` holds.
3. Where an inner pattern stands and the event has no object, it is matched as an empty object.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import NoneType
from typing import Any, Final

import msgspec

from gateway.events.conditions import Exists, any_of
from gateway.events.event import Event
from gateway.events.patterns import Choice, Field, Leaf, Pattern

Matches = Callable[[Mapping[str, Any]], bool]
"""Whether an object matches; for a whole pattern, the object is the event's members."""

_SCALARS: Final = frozenset({str, int, float, bool, NoneType})
_ABSENT: Final = object()
_EMPTY: Final[Mapping[str, Any]] = {}
_decode = msgspec.json.Decoder().decode


def facts_reader(patterns: Iterable[Pattern]) -> Callable[[Event], dict[str, Any]]:
    """A function like `facts_of` that leaves out `time` and `data` if no pattern speaks of them."""
    named = {name for pattern in patterns for name in _members(pattern)}
    with_time, with_data = "time" in named, "data" in named

    def facts_of(event: Event) -> dict[str, Any]:
        _, tenant, device, message_type = event.subject.split(".", 3)
        facts: dict[str, Any] = {"tenant": tenant, "device": device, "type": message_type}
        if with_time:
            time = event.time
            if time:
                facts["time"] = time
        if with_data:
            try:
                facts["data"] = _decode(event.data)
            except (msgspec.DecodeError, RecursionError):
                _decode_odd(facts, event.data)
        return facts

    return facts_of


def _members(pattern: Pattern) -> Iterator[str]:
    """The members of an event that a pattern speaks of."""
    yield from (field.name for field in pattern.fields)
    for choice in pattern.choices:
        for each in choice.patterns:
            yield from _members(each)


def _decode_odd(facts: dict[str, Any], data: bytes) -> None:
    """What the fast codec refuses and JSON allows: numbers beyond a double, which are infinite."""
    try:
        facts["data"] = json.loads(data)
    except (ValueError, RecursionError):
        return


def compiled(pattern: Pattern) -> Matches:
    """The pattern as a function."""
    checks = [_field(field.name, field.inner) for field in pattern.fields]
    checks += [_choice(choice) for choice in pattern.choices]
    if len(checks) == 1:
        return checks[0]
    if len(checks) == 2:  # noqa: PLR2004  # unrolled: the usual sizes need no loop
        one, two = checks
        return lambda members: one(members) and two(members)

    def matches(members: Mapping[str, Any]) -> bool:
        for check in checks:  # noqa: SIM110  # all() of a generator costs three times as much
            if not check(members):
                return False
        return True

    return matches


def leaves(value: object) -> Iterator[Any]:
    """The scalars that a member holds: itself, or those of an array."""
    if value.__class__ in _SCALARS:
        yield value
    elif isinstance(value, list):
        for each in value:
            yield from leaves(each)


def objects(value: object) -> Iterator[dict[str, Any]]:
    """The objects that a member holds: itself, or those of an array."""
    if isinstance(value, dict):
        yield value
    elif isinstance(value, list):
        for each in value:
            yield from objects(each)


def _field(name: str, inner: Leaf | Pattern) -> Matches:
    return _leaf(name, inner) if isinstance(inner, Leaf) else _nested(name, inner)


def _leaf(name: str, leaf: Leaf) -> Matches:
    test = any_of(leaf.conditions)
    if_absent = Exists(wanted=False) in leaf.conditions

    def matches(members: Mapping[str, Any]) -> bool:
        value = members.get(name, _ABSENT)
        if value.__class__ in _SCALARS:
            return test(value)
        found = list(leaves(value))
        return any(map(test, found)) if found else if_absent

    return matches


def _nested(name: str, pattern: Pattern) -> Matches:
    inner = compiled(pattern)
    if_absent = inner(_EMPTY)

    def matches(members: Mapping[str, Any]) -> bool:
        value = members.get(name)
        if value.__class__ is dict:
            return inner(value)
        found = list(objects(value))
        return any(map(inner, found)) if found else if_absent

    return matches


def _choice(choice: Choice) -> Matches:
    ways = [compiled(pattern) for pattern in choice.patterns]
    return lambda members: any(way(members) for way in ways)


facts_of: Final = facts_reader([Pattern((Field("time", Pattern(())), Field("data", Pattern(()))))])
"""The members of an event that patterns speak of.

`data` that is no JSON (another program stored it) is absent, and `time` if the event has none.
"""
