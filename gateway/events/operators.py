"""Reads one condition of a pattern: a value, or an operator with its argument.

Every offence is a PatternError which names its place and, where it can, the meant word.
"""

import difflib
import ipaddress
import json
import math
from collections.abc import Callable, Mapping
from typing import Any, Final, cast

from gateway.events.conditions import (
    AnythingBut,
    Cidr,
    Condition,
    Equals,
    EqualsIgnoreCase,
    Exists,
    Numeric,
    Positive,
    Prefix,
    Suffix,
    Wildcard,
)
from gateway.events.errors import PatternError

TEXT_CHARS_MAX: Final = 1_024
WILDCARD_CHARS_MAX: Final = 512
WILDCARDS_MAX: Final = 16
NUMBER_DIGITS_MAX: Final = 300
EXCLUDED_MAX: Final = 200
_SHOWN_CHARS_MAX: Final = 80
_BOUNDS_MAX: Final = 2

_OTHER_WORDS: Final = {
    "contains": 'wildcard, as in {"wildcard": "*text*"}',
    "not": "anything-but",
    "ne": "anything-but",
    "in": "an array of values",
    "regex": "wildcard",
    "range": "numeric",
    "gt": 'numeric, as in {"numeric": [">", 5]}',
    "lt": 'numeric, as in {"numeric": ["<", 5]}',
    "ends-with": "suffix",
    "starts-with": "prefix",
    "ip": "cidr",
}
"""What other languages call an operator."""


def shown(value: object) -> str:
    """A value as JSON, shortened, for messages."""
    text = json.dumps(value, default=str, ensure_ascii=False)
    return text if len(text) <= _SHOWN_CHARS_MAX else text[:_SHOWN_CHARS_MAX] + "..."


def condition_of(written: object, place: str) -> Condition:
    """The condition that is written at `place`.

    Raises:
        PatternError: it is none.
    """
    if isinstance(written, Mapping):
        name, argument = _only_member(written, place)
        read = _OPERATORS.get(name)
        if read is None:
            raise _unknown(name, tuple(_OPERATORS), place)
        return read(argument, f"{place}.{name}")
    if isinstance(written, list | tuple):
        raise PatternError(place, "an array stands in an array: write the values side by side")
    return Equals(_scalar(written, place))


def _only_member(written: Mapping[str, Any], place: str) -> tuple[str, Any]:
    if len(written) != 1:
        raise PatternError(place, f"one operator stands in an object, not {len(written)}")
    return next(iter(written.items()))


def _unknown(name: str, known: tuple[str, ...], place: str) -> PatternError:
    meant = _OTHER_WORDS.get(name)
    if meant is None:
        close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
        meant = close[0] if close else None
    hint = f"; did you mean {meant}?" if meant else f"; there are {', '.join(known)}"
    return PatternError(place, f"unknown operator {name}{hint}")


def _scalar(written: object, place: str) -> str | int | float | bool | None:
    if written is None or isinstance(written, bool):
        return written
    if isinstance(written, str):
        return _text(written, place, empty=True)
    if isinstance(written, int | float):
        return _number(written, place)
    raise PatternError(place, f"{written} is no value of JSON: write it as a string")


def _text(written: object, place: str, *, empty: bool = False) -> str:
    if not isinstance(written, str):
        raise PatternError(place, f"it takes a string, not {shown(written)}")
    if not written and not empty:
        raise PatternError(place, 'an empty text holds for every string: write {"exists": true}')
    if len(written) > TEXT_CHARS_MAX:
        raise PatternError(place, f"longer than {TEXT_CHARS_MAX} characters")
    return written


def _number(written: object, place: str) -> int | float:
    if isinstance(written, bool) or not isinstance(written, int | float):
        raise PatternError(place, f"it takes a number, not {shown(written)}")
    if isinstance(written, float) and not math.isfinite(written):
        raise PatternError(place, f"{written} is no number of JSON")
    if isinstance(written, int) and abs(written) >= 10**NUMBER_DIGITS_MAX:
        raise PatternError(place, f"it has more than {NUMBER_DIGITS_MAX} digits")
    return written


def _affix(kind: type[Prefix | Suffix]) -> Callable[[Any, str], Prefix | Suffix]:
    def read(argument: Any, place: str) -> Prefix | Suffix:
        if not isinstance(argument, Mapping):
            return kind(_text(argument, place))
        name, text = _only_member(argument, place)
        if name != "equals-ignore-case":
            raise _unknown(name, ("equals-ignore-case",), place)
        return kind(_text(text, f"{place}.{name}"), ignore_case=True)

    return read


def _equals_ignore_case(argument: Any, place: str) -> EqualsIgnoreCase:
    return EqualsIgnoreCase(_text(argument, place, empty=True))


def _exists(argument: Any, place: str) -> Exists:
    if not isinstance(argument, bool):
        raise PatternError(place, f"it takes true or false, not {shown(argument)}")
    return Exists(argument)


def _cidr(argument: Any, place: str) -> Cidr:
    text = _text(argument, place)
    if "/" not in text:
        raise PatternError(place, f"it takes a network such as 10.0.0.0/24, not {shown(text)}")
    try:
        return Cidr(ipaddress.ip_network(text))
    except ValueError as exc:
        raise PatternError(place, f"{exc}{_network_hint(text)}") from None


def _network_hint(text: str) -> str:
    try:
        return f"; did you mean {ipaddress.ip_network(text, strict=False)}?"
    except ValueError:
        return ""


def _wildcard(argument: Any, place: str) -> Wildcard:
    text = _text(argument, place, empty=True)
    if len(text) > WILDCARD_CHARS_MAX:
        raise PatternError(place, f"longer than {WILDCARD_CHARS_MAX} characters")
    parts = [""]
    characters = iter(text)
    for character in characters:
        if character == "*":
            if len(parts) > 1 and not parts[-1]:
                raise PatternError(place, "two * stand side by side: one means the same")
            parts.append("")
        elif character == "\\":
            escaped = next(characters, "")
            if escaped not in {"*", "\\"}:
                raise PatternError(place, r"a backslash stands before * or \ only")
            parts[-1] += escaped
        else:
            parts[-1] += character
    if len(parts) - 1 > WILDCARDS_MAX:
        raise PatternError(place, f"more than {WILDCARDS_MAX} times *")
    return Wildcard(tuple(parts))


def _numeric(argument: Any, place: str) -> Numeric:
    if not isinstance(argument, list | tuple) or not argument or len(argument) % 2:
        raise PatternError(place, 'it takes comparisons and numbers by turns: [">", 0, "<=", 5]')
    pairs = list(zip(argument[::2], argument[1::2], strict=True))
    if len(pairs) > _BOUNDS_MAX:
        raise PatternError(place, "more than two comparisons")
    bounds: dict[str, Any] = {}
    for number, (sign, bound) in enumerate(pairs):
        at = f"{place}[{2 * number}]"
        if not isinstance(sign, str) or sign not in _BOUNDS:
            hint = "; write anything-but" if sign in ("!=", "<>") else ""
            raise PatternError(at, f"{shown(sign)} is none of {' '.join(_BOUNDS)}{hint}")
        value = _number(bound, f"{place}[{2 * number + 1}]")
        for name, included in _BOUNDS[sign]:
            if name in bounds:
                raise PatternError(at, "one lower bound and one upper bound, or = alone")
            bounds |= {name: value, f"{name}_included": included}
    found = Numeric(**bounds)
    if found.empty:
        raise PatternError(place, f"no number is in {shown(list(argument))}")
    return found


_BOUNDS: Final[Mapping[str, tuple[tuple[str, bool], ...]]] = {
    "=": (("low", True), ("high", True)),
    ">": (("low", False),),
    ">=": (("low", True),),
    "<": (("high", False),),
    "<=": (("high", True),),
}


def _anything_but(argument: Any, place: str) -> AnythingBut:
    if isinstance(argument, Mapping):
        name, texts = _only_member(argument, place)
        if name not in _EXCLUDING:
            raise _unknown(name, tuple(_EXCLUDING), place)
        read, at = _EXCLUDING[name], f"{place}.{name}"
        return AnythingBut(tuple(read(each, spot) for each, spot in _listed(texts, at)))
    found: list[Positive] = []
    for each, spot in _listed(argument, place):
        if isinstance(each, bool) or not isinstance(each, str | int | float):
            raise PatternError(spot, f"it takes strings or numbers, not {shown(each)}")
        if found and isinstance(each, str) != isinstance(cast("Equals", found[0]).value, str):
            raise PatternError(spot, "it takes only strings or only numbers")
        found.append(Equals(_scalar(each, spot)))
    return AnythingBut(tuple(found))


def _listed(argument: Any, place: str) -> list[tuple[Any, str]]:
    """The argument, or what stands in it, each with its place."""
    if not isinstance(argument, list | tuple):
        return [(argument, place)]
    if not argument:
        raise PatternError(place, "an empty array excludes nothing")
    if len(argument) > EXCLUDED_MAX:
        raise PatternError(place, f"more than {EXCLUDED_MAX} values")
    return [(each, f"{place}[{number}]") for number, each in enumerate(argument)]


def _excluded_affix(kind: type[Prefix | Suffix]) -> Callable[[Any, str], Prefix | Suffix]:
    return lambda argument, place: kind(_text(argument, place))


_EXCLUDING: Final[Mapping[str, Callable[[Any, str], Positive]]] = {
    "prefix": _excluded_affix(Prefix),
    "suffix": _excluded_affix(Suffix),
    "equals-ignore-case": _equals_ignore_case,
    "wildcard": _wildcard,
}
_OPERATORS: Final[Mapping[str, Callable[[Any, str], Condition]]] = {
    "prefix": _affix(Prefix),
    "suffix": _affix(Suffix),
    "equals-ignore-case": _equals_ignore_case,
    "anything-but": _anything_but,
    "numeric": _numeric,
    "exists": _exists,
    "cidr": _cidr,
    "wildcard": _wildcard,
}
OPERATORS: Final = (*_OPERATORS, "$or")
"""All words of the language."""
