"""What in the rules of an events file can never match, although it is well formed."""

from collections.abc import Collection, Iterator, Sequence
from typing import Final

from gateway.events.conditions import Condition, Equals, Exists, Numeric, Prefix
from gateway.events.filters import types_of
from gateway.events.operators import shown
from gateway.events.patterns import OR, Leaf, Pattern
from gateway.events.rules import Rule
from tidegate.wire.grammar import is_message_type, is_token

_NAMES: Final = ("tenant", "device", "type")


def never(rules: Sequence[Rule], schemas: Collection[str] | None = None) -> Iterator[str]:
    """A line for each condition that no event can satisfy.

    Args:
        rules: of the file.
        schemas: the types that have a schema, if the gateway rejects all others.
    """
    for rule in rules:
        place = f'rule "{rule.name}".when'
        yield from _of_pattern(rule.when, place)
        for message_type in types_of(rule.when) or ():
            if schemas is not None and not _admitted(message_type, schemas):
                yield (
                    f'{place}.type: "{message_type}" has no schema, and unknown_type = "reject"'
                    " refuses such events"
                )


def _admitted(message_type: str, schemas: Collection[str]) -> bool:
    if message_type.endswith("."):
        return any(each.startswith(message_type) for each in schemas)
    return message_type in schemas


def _of_pattern(pattern: Pattern, place: str) -> Iterator[str]:
    for field in pattern.fields:
        if field.name in (*_NAMES, "time") and isinstance(field.inner, Leaf):
            for condition, written in zip(field.inner.conditions, field.inner.written, strict=True):
                reason = _impossible(field.name, condition)
                if reason is not None:
                    yield f"{place}.{field.name}: {shown(written)} never holds: {reason}"
    for choice in pattern.choices:
        for number, branch in enumerate(choice.patterns):
            at = f"{place}.{OR}[{number}]"
            yield from _of_pattern(branch, at)
            yield from _excluded(pattern, branch, at)


def _impossible(name: str, condition: Condition) -> str | None:
    """Why no value of this member satisfies the condition."""
    if isinstance(condition, Numeric) or (
        isinstance(condition, Equals) and not isinstance(condition.value, str)
    ):
        return f"{name} is a string"
    if name == "time":
        return None
    if condition == Exists(wanted=False):
        return f"every event has a {name}"
    if isinstance(condition, Equals):
        text = str(condition.value)
        fits = is_message_type(text) if name == "type" else is_token(text)
        return None if fits else f"it is no {name}"
    if isinstance(condition, Prefix):
        text = condition.text
        fits = is_message_type(text.removesuffix(".")) if name == "type" else is_token(text)
        return None if fits else f"no {name} begins so"
    return None


def _excluded(outer: Pattern, branch: Pattern, place: str) -> Iterator[str]:
    """Members of a branch whose values the pattern around it rules out."""
    for field in branch.fields:
        around = outer.field(field.name)
        if not isinstance(around, Leaf) or not isinstance(field.inner, Leaf):
            continue
        wanted, allowed = _literals(field.inner), _literals(around)
        if wanted and allowed and field.name in _NAMES and not wanted & allowed:
            only = shown(sorted(allowed))
            yield f"{place}.{field.name}: the pattern around it allows {only} only"


def _literals(leaf: Leaf) -> set[str]:
    """The values, if the leaf holds for nothing else."""
    found = {str(each.value) for each in leaf.conditions if isinstance(each, Equals)}
    return found if len(found) == len(leaf.conditions) else set()
