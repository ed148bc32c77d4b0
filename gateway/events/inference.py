"""A schema proposed from events that were stored: what they all have in common.

It is a proposal for an engineer to tighten. It names the members, those that every event had, and
their types. It sets no bounds, since later events may go beyond those that are stored.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from tidegate.wire.grammar import is_timestamp

_MEMBERS_MAX: Final = 200
"""An object with more different members is a map, and its members are not named."""
_DEPTH_MAX: Final = 16


@dataclass(slots=True)
class _Seen:
    """What was seen in one place."""

    count: int = 0
    types: set[str] = field(default_factory=set)
    members: dict[str, "_Seen"] = field(default_factory=dict)
    objects: int = 0
    items: "_Seen | None" = None
    all_times: bool = True
    is_map: bool = False


class SchemaProposal:
    """Events of one type, looked at one by one."""

    def __init__(self, message_type: str) -> None:
        self._type = message_type
        self._seen = _Seen()

    @property
    def events(self) -> int:
        """Events looked at."""
        return self._seen.count

    def add(self, data: bytes) -> None:
        """Look at the `data` of an event.

        Raises:
            msgspec.DecodeError: it is not JSON.
            RecursionError: it is nested too deep.
        """
        _look(self._seen, msgspec.json.decode(data), 0)

    def schema(self) -> dict[str, Any]:
        """The proposal, JSON Schema 2020-12."""
        return {
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "title": self._type,
            "description": f"Proposed from {self._seen.count} stored events.",
            **_schema(self._seen),
        }


def _look(seen: _Seen, value: Any, depth: int) -> None:
    seen.count += 1
    kind = _type_of(value)
    seen.types.add(kind)
    if kind == "string":
        seen.all_times = seen.all_times and is_timestamp(value)
    elif depth >= _DEPTH_MAX:
        return
    elif kind == "object":
        seen.objects += 1
        for name, inner in value.items():
            if name not in seen.members and len(seen.members) >= _MEMBERS_MAX:
                seen.is_map = True
                return
            _look(seen.members.setdefault(name, _Seen()), inner, depth + 1)
    elif kind == "array":
        seen.items = seen.items or _Seen()
        for inner in value:
            _look(seen.items, inner, depth + 1)


def _schema(seen: _Seen) -> dict[str, Any]:
    types = sorted(seen.types - ({"integer"} if "number" in seen.types else set()))
    schema: dict[str, Any] = {}
    if types:
        schema["type"] = types[0] if len(types) == 1 else types
    if "string" in seen.types and seen.all_times:
        schema["format"] = "date-time"
    if seen.objects and not seen.is_map:
        schema["properties"] = {name: _schema(each) for name, each in _in_order(seen.members)}
        required = [n for n, each in _in_order(seen.members) if each.count == seen.objects]
        if required:
            schema["required"] = required
    if seen.items is not None and seen.items.count:
        schema["items"] = _schema(seen.items)
    return schema


def _in_order(members: dict[str, _Seen]) -> Iterator[tuple[str, _Seen]]:
    yield from sorted(members.items())


def _type_of(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    names: dict[type, str] = {
        int: "integer", float: "number", str: "string", list: "array", dict: "object",
    }  # fmt: skip
    return names[type(value)]
