"""One condition of a pattern on one value: what an operator means, as a plain function.

Operators are those of EventBridge; the table in `config/README.md` has an example of each. Values
are scalars of JSON: strings, numbers, true, false, null. `matching.py` takes arrays and objects
apart.

Rules of all operators:

1. A condition never raises, whatever the value is: one of another kind does not hold.
2. `true` is not 1. Numbers are equal if their values are: 300, 300.0 and 3e2 are one number.
3. `anything-but` needs a value: a member that is absent does not hold.
"""

import ipaddress
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

Scalar = str | int | float | bool | None
Test = Callable[[Any], bool]
"""Whether a condition holds for a scalar."""

_ADDRESSES_CACHED: Final = 4_096


@dataclass(frozen=True, slots=True)
class Equals:
    """The value itself: `"charging"`, `7`, `true`, `null`, `""`."""

    value: Scalar

    def test(self) -> Test:
        value = self.value
        if isinstance(value, bool) or value is None:
            return lambda met: met is value
        if isinstance(value, str):
            return lambda met: bool(met == value)
        return lambda met: met == value and met.__class__ is not bool


@dataclass(frozen=True, slots=True)
class Prefix:
    """The string begins with `text`."""

    text: str
    ignore_case: bool = False

    def test(self) -> Test:
        text = self.text
        if self.ignore_case:
            folded = text.casefold()
            return lambda met: met.__class__ is str and met.casefold().startswith(folded)
        return lambda met: met.__class__ is str and met.startswith(text)


@dataclass(frozen=True, slots=True)
class Suffix:
    """The string ends with `text`."""

    text: str
    ignore_case: bool = False

    def test(self) -> Test:
        text = self.text
        if self.ignore_case:
            folded = text.casefold()
            return lambda met: met.__class__ is str and met.casefold().endswith(folded)
        return lambda met: met.__class__ is str and met.endswith(text)


@dataclass(frozen=True, slots=True)
class EqualsIgnoreCase:
    """The string is `text` in any case, by Unicode's case folding."""

    text: str

    def test(self) -> Test:
        folded = self.text.casefold()
        return lambda met: met.__class__ is str and met.casefold() == folded


@dataclass(frozen=True, slots=True)
class Wildcard:
    """The string consists of `parts`, with anything or nothing between two of them.

    The leftmost place of each part is taken, which never needs a second try: the time is bounded by
    the length of the value times the number of parts.
    """

    parts: tuple[str, ...]

    def test(self) -> Test:
        first, *middle = self.parts
        if not middle:
            return Equals(first).test()
        last = middle.pop()
        ends = len(first) + len(last)

        def holds(met: Any) -> bool:
            if met.__class__ is not str or len(met) < ends:
                return False
            if not (met.startswith(first) and met.endswith(last)):
                return False
            at, end = len(first), len(met) - len(last)
            for part in middle:
                at = met.find(part, at, end)
                if at < 0:
                    return False
                at += len(part)
            return True

        return holds


@dataclass(frozen=True, slots=True)
class Numeric:
    """The number lies in a range. None is no bound."""

    low: int | float | None = None
    high: int | float | None = None
    low_included: bool = False
    high_included: bool = False

    @property
    def empty(self) -> bool:
        """Whether no number lies in it."""
        if self.low is None or self.high is None:
            return False
        if self.low == self.high:
            return not (self.low_included and self.high_included)
        return self.low > self.high

    def test(self) -> Test:
        low, high = self.low, self.high
        if low is None:
            assert high is not None
            return _below(high, self.high_included)
        if high is None:
            return _above(low, self.low_included)
        above, below = _above(low, self.low_included), _below(high, self.high_included)
        return lambda met: above(met) and below(met)


def _above(low: float, included: bool) -> Test:
    if included:
        return lambda met: (met.__class__ is float or met.__class__ is int) and met >= low
    return lambda met: (met.__class__ is float or met.__class__ is int) and met > low


def _below(high: float, included: bool) -> Test:
    if included:
        return lambda met: (met.__class__ is float or met.__class__ is int) and met <= high
    return lambda met: (met.__class__ is float or met.__class__ is int) and met < high


@dataclass(frozen=True, slots=True)
class Cidr:
    """The string is an address of `network`."""

    network: ipaddress.IPv4Network | ipaddress.IPv6Network

    def test(self) -> Test:
        version = self.network.version
        mask, base = int(self.network.netmask), int(self.network.network_address)

        def holds(met: Any) -> bool:
            if met.__class__ is not str:
                return False
            found = _address(met)
            return found is not None and found[0] == version and found[1] & mask == base

        return holds


@dataclass(frozen=True, slots=True)
class Exists:
    """There is a value, whatever it is; or there is none."""

    wanted: bool

    def test(self) -> Test:
        wanted = self.wanted
        return lambda _met: wanted


Positive = Equals | Prefix | Suffix | EqualsIgnoreCase | Wildcard


@dataclass(frozen=True, slots=True)
class AnythingBut:
    """There is a value for which none of `conditions` holds."""

    conditions: tuple[Positive, ...]

    def test(self) -> Test:
        excluded = any_of(self.conditions)
        return lambda met: not excluded(met)


Condition = Positive | Numeric | Cidr | Exists | AnythingBut


def any_of(conditions: tuple[Condition, ...]) -> Test:
    """Whether one of them holds. All literal strings together cost one look-up."""
    texts = frozenset(map(_literal_text, conditions)) - {None}
    tests = [each.test() for each in conditions if _literal_text(each) is None]
    if len(texts) == 1:
        tests.insert(0, Equals(*texts).test())
    elif texts:
        tests.insert(0, lambda met: met in texts)
    if len(tests) == 1:
        return tests[0]

    def holds(met: Any) -> bool:
        for test in tests:  # noqa: SIM110  # any() of a generator costs three times as much
            if test(met):
                return True
        return False

    return holds


def _literal_text(condition: Condition) -> str | None:
    if isinstance(condition, Equals) and isinstance(condition.value, str):
        return condition.value
    return None


@lru_cache(maxsize=_ADDRESSES_CACHED)
def _address(text: str) -> tuple[int, int] | None:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    return address.version, int(address)
