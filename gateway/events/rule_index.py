"""Which of many patterns an event matches, without trying each of them.

Rules on one type usually differ in a value of `data`: a code, a kind, a site. Of each pattern one
leaf is chosen that holds nothing but literals and prefixes, at the path that tells the patterns
apart best. An event's value at that path finds the patterns that can match, and only these are
tried; if an equal text has found a pattern, the leaf itself is not tested again. A pattern without
such a leaf is always tried.

    {"data": {"code": ["E7", {"prefix": "F"}]}}   ->   path (data, code), keys E7 and F...
"""

from collections import Counter, defaultdict
from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import Any, Generic, TypeVar

from gateway.events.conditions import Equals, Prefix
from gateway.events.matching import Matches, compiled, facts_reader, leaves, objects
from gateway.events.patterns import Field, Leaf, Pattern

Path = tuple[str, ...]
K = TypeVar("K", bound=Hashable)


class RuleIndex(Generic[K]):
    """Patterns by key: the keys of those that an event matches."""

    def __init__(self, patterns: Mapping[K, Pattern]) -> None:
        """
        Args:
            patterns: the patterns, each under the key by which it is found.
        """
        leaf_of = _chosen(patterns)
        self._always = [
            (key, compiled(pattern)) for key, pattern in patterns.items() if key not in leaf_of
        ]
        by_path: dict[Path, dict[K, tuple[Leaf, Pattern]]] = defaultdict(dict)
        for key, (path, leaf) in leaf_of.items():
            by_path[path][key] = leaf, patterns[key]
        self._paths = [_PathIndex(path, found) for path, found in by_path.items()]
        self.facts_of = facts_reader(patterns.values())
        """Reads of an event what the patterns speak of, and no more."""

    def matching(self, facts: Mapping[str, Any]) -> list[K]:
        """The keys of the patterns that match an event, each once."""
        found = [key for key, test in self._always if test(facts)]
        for index in self._paths:
            found += index.matching(facts)
        return found


class _PathIndex(Generic[K]):
    """The patterns whose chosen leaf is at one path."""

    def __init__(self, path: Path, patterns: Mapping[K, tuple[Leaf, Pattern]]) -> None:
        self._path = path
        self._tests: dict[K, Matches] = {key: compiled(each) for key, (_, each) in patterns.items()}
        self._rests = {key: _rest(each, path) for key, (_, each) in patterns.items()}
        """What is left to test of a pattern once its leaf is known to hold; None for nothing."""
        self._literals: dict[Any, list[K]] = {}
        self._prefixes: dict[int, dict[str, list[K]]] = {}
        for key, (leaf, _) in patterns.items():
            for condition in leaf.conditions:
                if isinstance(condition, Prefix):
                    texts = self._prefixes.setdefault(len(condition.text), {})
                    keys = texts.setdefault(condition.text, [])
                else:
                    assert isinstance(condition, Equals)
                    keys = self._literals.setdefault(condition.value, [])
                if not keys or keys[-1] != key:  # true and 1 are one key of a dict
                    keys.append(key)

    def matching(self, facts: Mapping[str, Any]) -> Sequence[K]:
        """The keys of the patterns that match, each once."""
        value: Any = facts
        for name in self._path:
            if value.__class__ is not dict:
                return self._tested(list(_values_at(facts, self._path)), facts)
            value = value.get(name)
        if value.__class__ is str and not self._prefixes:
            rests = self._rests
            keys = self._literals.get(value, ())
            return [key for key in keys if (rest := rests[key]) is None or rest(facts)]
        if value.__class__ is dict:
            return ()
        return self._tested(list(leaves(value)), facts)

    def _tested(self, values: Sequence[Any], facts: Mapping[str, Any]) -> list[K]:
        tests = self._tests
        return [key for key in self._of_several(values) if tests[key](facts)]

    def _of_several(self, values: Sequence[Any]) -> Sequence[K]:
        found: dict[K, None] = {}
        for value in values:
            found.update(dict.fromkeys(self._literals.get(value, ())))
            if isinstance(value, str):
                for length, texts in self._prefixes.items():
                    found.update(dict.fromkeys(texts.get(value[:length], ())))
        return list(found)


def _rest(pattern: Pattern, path: Path) -> Matches | None:
    """The pattern without the leaf at a path, as a function; None if nothing is left."""
    left = _without(pattern, path)
    return compiled(left) if left.fields or left.choices else None


def _without(pattern: Pattern, path: Path) -> Pattern:
    fields = []
    for field in pattern.fields:
        if field.name != path[0]:
            fields.append(field)
        elif isinstance(field.inner, Pattern):
            inner = _without(field.inner, path[1:])
            if inner.fields or inner.choices:
                fields.append(Field(field.name, inner))
    return Pattern(tuple(fields), pattern.choices)


def _values_at(value: Any, path: Path) -> Iterator[Any]:
    """The scalars at a path, through the objects that stand in arrays."""
    if not path:
        yield from leaves(value)
        return
    for each in objects(value):
        if path[0] in each:
            yield from _values_at(each[path[0]], path[1:])


def _chosen(patterns: Mapping[K, Pattern]) -> dict[K, tuple[Path, Leaf]]:
    """For each pattern that has one, the leaf at the path that tells the patterns apart best."""
    leaves_of = {key: dict(_exact_leaves(pattern, ())) for key, pattern in patterns.items()}
    uses: dict[Path, Counter[Any]] = defaultdict(Counter)
    for found in leaves_of.values():
        for path, leaf in found.items():
            uses[path].update(_texts(leaf))
    chosen = {}
    for key, found in leaves_of.items():
        if found:
            path = min(found, key=lambda path: _patterns_tried(uses[path], found[path]))
            chosen[key] = (path, found[path])
    return chosen


def _patterns_tried(uses: Counter[Any], leaf: Leaf) -> float:
    """How many patterns share a value of this leaf, on average."""
    texts = _texts(leaf)
    return sum(uses[text] for text in texts) / len(texts)


def _texts(leaf: Leaf) -> list[Any]:
    return [each.text if isinstance(each, Prefix) else each.value for each in leaf.conditions]  # type: ignore[union-attr]  # `_exact`


def _exact_leaves(pattern: Pattern, above: Path) -> Iterator[tuple[Path, Leaf]]:
    """The leaves that every matching event must satisfy, and that hold literals and prefixes."""
    for field in pattern.fields:
        path = (*above, field.name)
        if isinstance(field.inner, Pattern):
            yield from _exact_leaves(field.inner, path)
        elif _exact(field.inner):
            yield path, field.inner


def _exact(leaf: Leaf) -> bool:
    return all(
        isinstance(each, Equals) or (isinstance(each, Prefix) and not each.ignore_case)
        for each in leaf.conditions
    )
