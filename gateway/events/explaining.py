"""Why a pattern does not match: the first condition that does not hold, and the value it met."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gateway.events.matching import compiled, leaves, objects
from gateway.events.operators import shown
from gateway.events.patterns import OR, Choice, Field, Leaf, Pattern


@dataclass(frozen=True, slots=True)
class Failure:
    """One condition that does not hold."""

    place: str
    """The member, from the outside in: `data.position.lat`."""
    wanted: str
    met: str

    def __str__(self) -> str:
        return f"{self.place}: {self.wanted} does not hold for {self.met}"


def first_failure(pattern: Pattern, members: Mapping[str, Any], place: str = "") -> Failure | None:
    """
    Args:
        pattern: what did not match.
        members: the event (`facts_of`), or an object in it.
        place: of that object; empty for the event.

    Returns:
        None if the pattern matches.
    """
    for field in pattern.fields:
        failure = _of_field(field, members, place)
        if failure is not None:
            return failure
    for choice in pattern.choices:
        failure = _of_choice(choice, members, place)
        if failure is not None:
            return failure
    return None


def _of_field(field: Field, members: Mapping[str, Any], place: str) -> Failure | None:
    if compiled(Pattern((field,)))(members):
        return None
    at = f"{place}.{field.name}" if place else field.name
    if isinstance(field.inner, Leaf):
        return Failure(at, shown(list(field.inner.written)), _met(members, field.name))
    found = list(objects(members.get(field.name)))
    if len(found) > 1:
        first = first_failure(field.inner, found[0], f"{at}[0]")
        return Failure(at, "one pattern", f"any of {len(found)} objects; of the first, {first}")
    return first_failure(field.inner, found[0] if found else {}, at)


def _of_choice(choice: Choice, members: Mapping[str, Any], place: str) -> Failure | None:
    failures = [first_failure(pattern, members, place) for pattern in choice.patterns]
    if None in failures:
        return None
    met = "; ".join(f"({number}) {failure}" for number, failure in enumerate(failures, 1))
    return Failure(f"{place}.{OR}" if place else OR, f"one of {len(failures)} patterns", met)


def _met(members: Mapping[str, Any], name: str) -> str:
    if name not in members:
        return "a member that is absent"
    value = members[name]
    if isinstance(value, dict):
        return "an object, which has no value of its own"
    if isinstance(value, list) and not list(leaves(value)):
        return "an array without values"
    return shown(value)
