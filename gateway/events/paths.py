"""Reads some members of a JSON document, and skips the rest at the speed of the codec.

A path names members from the outside in: `("position", "lat")`. The value of a path is its JSON
text: members that are not wanted are never built, and a number keeps its digits.
"""

from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Any

import msgspec
from msgspec import UNSET, Raw, UnsetType

Path = tuple[str, ...]
Texts = Sequence[bytes | Raw | UnsetType | None]
"""JSON texts in the order of the paths. None and UNSET stand for a member that is not there."""


class PathReader:
    """Reads the same paths of many documents."""

    def __init__(self, paths: Sequence[Path]) -> None:
        """
        Args:
            paths: without repeats; none is empty.
        """
        self._paths = tuple(paths)
        self._decode = msgspec.json.Decoder(_struct_of(self._paths)).decode
        self._get = _getter(self._paths)

    def read(self, document: bytes) -> Texts:
        """The JSON text of each path.

        Raises:
            msgspec.DecodeError: the document is not JSON.
        """
        try:
            return self._get(self._decode(document))
        except msgspec.ValidationError:
            # Something on the way to a path is no object.
            return [_walk(document, path) for path in self._paths]


def _struct_of(paths: Sequence[Path]) -> Any:
    """A struct with a member for each first name. Deeper names nest."""
    fields: list[tuple[str, Any, Any]] = []
    rename: dict[str, str] = {}
    for place, first in enumerate(_firsts(paths)):
        deeper = _beyond(first, paths)
        kind: Any = Raw | UnsetType
        if deeper and (first,) not in paths:
            kind = _struct_of(deeper) | UnsetType | None
        fields.append((f"f{place}", kind, UNSET))
        rename[f"f{place}"] = first
    return msgspec.defstruct("Wanted", fields, rename=rename, gc=False)


def _getter(paths: Sequence[Path]) -> Callable[[Any], Texts]:
    firsts = _firsts(paths)
    if all(len(path) == 1 for path in paths):
        names = [f"f{firsts.index(path[0])}" for path in paths]
        if len(names) > 1:
            return attrgetter(*names)
        only = attrgetter(names[0])
        return lambda wanted: (only(wanted),)
    steps = [_steps(path, paths) for path in paths]
    return lambda wanted: [_follow(wanted, names, rest) for names, rest in steps]


def _steps(path: Path, paths: Sequence[Path]) -> tuple[list[str], Path]:
    """The members of the nested structs that lead to `path`, and what is left of it below them."""
    names: list[str] = []
    while path:
        names.append(f"f{_firsts(paths).index(path[0])}")
        if (path[0],) in paths:
            return names, path[1:]
        paths, path = _beyond(path[0], paths), path[1:]
    return names, ()


def _follow(wanted: Any, names: Sequence[str], rest: Path) -> bytes | Raw | UnsetType | None:
    for name in names:
        if wanted is None or wanted is UNSET:
            return None
        wanted = getattr(wanted, name)
    if rest and isinstance(wanted, Raw):
        return _walk(bytes(wanted), rest)
    value: bytes | Raw | UnsetType | None = wanted
    return value


def _walk(text: bytes, path: Path) -> bytes | None:
    for name in path:
        try:
            found = msgspec.json.decode(text, type=dict[str, Raw]).get(name)
        except msgspec.ValidationError:
            return None  # no object, so nothing is in it
        if found is None:
            return None
        text = bytes(found)
    return text


def _firsts(paths: Sequence[Path]) -> list[str]:
    return list(dict.fromkeys(path[0] for path in paths))


def _beyond(first: str, paths: Sequence[Path]) -> list[Path]:
    return [path[1:] for path in paths if path[0] == first and len(path) > 1]
