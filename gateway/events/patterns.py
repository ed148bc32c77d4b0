"""Patterns of rules: EventBridge's language, read into a tree and checked.

A pattern mirrors the event. Members of an object must all match; an array holds conditions, of
which one must hold; `$or` holds patterns, of which one must match. The members are those of an
event: `tenant`, `device`, `type`, `time` and `data`, which is EventBridge's `detail`.

    {"type": ["battery.low"], "data": {"soc": [{"numeric": ["<", 20]}]}}

    Pattern ---- fields ---> Field(name, Leaf | Pattern)
       |                                  |
       +-- choices --> Choice(patterns)   +-- conditions

`matching.py` makes a function of a pattern, `conditions.py` says what each operator means.
"""

import difflib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from gateway.events.conditions import Condition
from gateway.events.errors import PatternError
from gateway.events.operators import condition_of, shown

MEMBERS: Final = ("tenant", "device", "type", "time", "data")
DEPTH_MAX: Final = 16
CONDITIONS_MAX: Final = 500
PATTERN_CHARS_MAX: Final = 65_536
OR: Final = "$or"

_OTHER_NAMES: Final = {
    "detail": "data",
    "detail-type": "type",
    "source": "device",
    "account": "tenant",
    "payload": "data",
    "kind": "type",
}
"""What other systems call the members of an event."""


@dataclass(frozen=True, slots=True)
class Leaf:
    """One of the conditions must hold for a value of the member."""

    conditions: tuple[Condition, ...]
    written: tuple[Any, ...]
    """The conditions as they were written, for messages."""


@dataclass(frozen=True, slots=True)
class Field:
    """What must match the member `name`."""

    name: str
    inner: "Leaf | Pattern"


@dataclass(frozen=True, slots=True)
class Choice:
    """One of the patterns must match."""

    patterns: "tuple[Pattern, ...]"


@dataclass(frozen=True, slots=True)
class Pattern:
    """All fields and all choices must match."""

    fields: tuple[Field, ...]
    choices: tuple[Choice, ...] = ()

    def field(self, name: str) -> "Leaf | Pattern | None":
        """What the member `name` must match, outside of choices."""
        return next((field.inner for field in self.fields if field.name == name), None)


def parse_pattern(written: object) -> Pattern:
    """Read and check a pattern.

    Args:
        written: a table of TOML, or a string of JSON.

    Raises:
        PatternError: with the place of the first offence.
    """
    if isinstance(written, str):
        written = _decoded(written)
    if not isinstance(written, Mapping):
        raise PatternError("", f"a pattern is an object, not {shown(written)}")
    return _Parser().pattern(written, "", 1, top=True)


class _Parser:
    """Reads one pattern, and counts its conditions."""

    def __init__(self) -> None:
        self._conditions = 0

    def pattern(
        self, written: Mapping[str, Any], place: str, depth: int, *, top: bool = False
    ) -> Pattern:
        """
        Args:
            written: an object of the pattern.
            place: where it is.
            depth: how deep, from 1.
            top: whether its members are those of the event.
        """
        if not written:
            raise PatternError(place, "an empty object matches nothing in particular: remove it")
        if depth > DEPTH_MAX:
            raise PatternError(place, f"deeper than {DEPTH_MAX} levels")
        fields: list[Field] = []
        choices: list[Choice] = []
        for name, inner in written.items():
            at = f"{place}.{name}"
            if name == OR:
                choices.append(self._choice(inner, at, depth, top=top))
            else:
                if top:
                    _check_member(name, inner, at)
                fields.append(Field(name, self._inner(inner, at, depth)))
        return Pattern(tuple(fields), tuple(choices))

    def _inner(self, inner: Any, at: str, depth: int) -> Leaf | Pattern:
        if isinstance(inner, Mapping):
            return self.pattern(inner, at, depth + 1)
        if not isinstance(inner, list | tuple):
            raise PatternError(at, f"write an array of values: [{shown(inner)}]")
        return self._leaf(inner, at)

    def _leaf(self, written: Sequence[Any], at: str) -> Leaf:
        if not written:
            raise PatternError(at, "an empty array matches no event")
        self._conditions += len(written)
        if self._conditions > CONDITIONS_MAX:
            raise PatternError(at, f"more than {CONDITIONS_MAX} conditions in one pattern")
        conditions = tuple(
            condition_of(each, f"{at}[{number}]") for number, each in enumerate(written)
        )
        return Leaf(conditions, tuple(written))

    def _choice(self, written: Any, at: str, depth: int, *, top: bool) -> Choice:
        if not isinstance(written, list | tuple) or len(written) < 2:  # noqa: PLR2004  # a choice
            raise PatternError(at, "write an array of two or more patterns")
        patterns = []
        for number, each in enumerate(written):
            place = f"{at}[{number}]"
            if not isinstance(each, Mapping):
                raise PatternError(place, f"a pattern is an object, not {shown(each)}")
            patterns.append(self.pattern(each, place, depth + 1, top=top))
        return Choice(tuple(patterns))


def _check_member(name: str, inner: Any, at: str) -> None:
    if name not in MEMBERS:
        close = difflib.get_close_matches(name, MEMBERS, n=1, cutoff=0.5)
        meant = _OTHER_NAMES.get(name) or (close[0] if close else None)
        raise PatternError(
            at,
            f"an event has {', '.join(MEMBERS)}" + (f"; did you mean {meant}?" if meant else ""),
        )
    if name != "data" and isinstance(inner, Mapping):
        raise PatternError(at, f"{name} is a string: write an array of values")


def _decoded(text: str) -> Any:
    if len(text) > PATTERN_CHARS_MAX:
        raise PatternError("", f"longer than {PATTERN_CHARS_MAX} characters")
    try:
        return json.loads(text, object_pairs_hook=_object)
    except (json.JSONDecodeError, RecursionError) as exc:
        raise PatternError("", f"a pattern in a string is JSON: {exc}") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise PatternError("", f"the member {twice} is written twice in one object")
    return found
