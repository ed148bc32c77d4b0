"""Types of events as subject filters that the server applies, so that a consumer reads only those.

A type is a literal (`battery.low`) or a prefix that ends with a dot (`battery.`: every type that
begins with it). nats-server refuses a consumer whose filters overlap, so they are reduced first.
"""

from collections.abc import Iterable

from gateway.events.conditions import Condition, Equals, Prefix
from gateway.events.patterns import Leaf, Pattern
from tidegate.wire.grammar import is_message_type

EVERYTHING = ("events.>",)


def is_type_pattern(text: str) -> bool:
    """Whether `text` is a type, or a prefix of types that ends with a dot."""
    return is_message_type(text.removesuffix("."))


def reduced(patterns: Iterable[str]) -> tuple[str, ...]:
    """The patterns without those that another one covers, sorted."""
    kept: list[str] = []
    # A prefix sorts before all that it covers, and nothing else comes between.
    for pattern in sorted(set(patterns)):
        covered = bool(kept) and kept[-1].endswith(".") and pattern.startswith(kept[-1])
        if not covered:
            kept.append(pattern)
    return tuple(kept)


def subjects(patterns: Iterable[str]) -> tuple[str, ...]:
    """Filter subjects without overlaps; everything if there is no pattern."""
    found = tuple(
        f"events.*.*.{pattern}>" if pattern.endswith(".") else f"events.*.*.{pattern}"
        for pattern in reduced(patterns)
    )
    return found or EVERYTHING


def types_of(pattern: Pattern) -> tuple[str, ...] | None:
    """The types and prefixes outside of which a pattern matches nothing; None if it may match any.

    Any condition on the type but a literal, or a prefix that ends with a dot, may match any type;
    so may a choice of which one branch says nothing of the type.
    """
    inner = pattern.field("type")
    if isinstance(inner, Leaf):
        found = [_type_pattern(condition) for condition in inner.conditions]
        literal = [each for each in found if each is not None]
        if len(literal) == len(found):
            return reduced(literal)
    for choice in pattern.choices:
        branches = [types_of(each) for each in choice.patterns]
        narrow = [each for each in branches if each is not None]
        if len(narrow) == len(branches):
            return reduced(each for branch in narrow for each in branch)
    return None


def _type_pattern(condition: Condition) -> str | None:
    if isinstance(condition, Equals) and isinstance(condition.value, str):
        return condition.value if is_message_type(condition.value) else None
    if isinstance(condition, Prefix) and not condition.ignore_case:
        text = condition.text
        return text if text.endswith(".") and is_type_pattern(text) else None
    return None
