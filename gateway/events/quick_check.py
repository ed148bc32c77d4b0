"""A quick yes for events that fit plain schemas: parsed and checked in one pass by `msgspec`.

A schema is compiled to a msgspec type if it consists of plain keywords only. What this type accepts
fits the schema (`tests/events/test_quick_check.py` compares it with `jsonschema-rs`). What it does
not accept may fit nevertheless, and `jsonschema-rs` decides: it also names the offence. So a quick
check saves time and has no say of its own.
"""

import math
from collections.abc import Callable, Mapping
from types import GenericAlias
from typing import Annotated, Any, Final, Literal

import msgspec

_NOTES: Final = frozenset({"$schema", "$comment", "title", "description", "examples", "default"})
"""Keywords that constrain nothing."""
_EXACT_MAX: Final = 2**52
"""Bounds beyond it are left to the validator: a float cannot be compared with them exactly."""
_LENGTHS: Final = {
    "string": {"minLength": "min_length", "maxLength": "max_length"},
    "array": {"minItems": "min_length", "maxItems": "max_length"},
}
_BOUNDS: Final = {
    "minimum": "ge",
    "maximum": "le",
    "exclusiveMinimum": "gt",
    "exclusiveMaximum": "lt",
}
_DEPTH_MAX: Final = 16


class _NotPlainError(Exception):
    """The schema has a keyword that no msgspec type says. Stays in this file."""


def quick_check(document: object) -> Callable[[bytes], bool] | None:
    """Whether JSON fits the schema for certain; None if the schema is not plain enough to say.

    Args:
        document: a valid JSON Schema (2020-12).
    """
    try:
        decode = msgspec.json.Decoder(_type_of(document, 0)).decode
    except (_NotPlainError, TypeError, ValueError):  # msgspec refuses some bounds
        return None

    def fits(data: bytes) -> bool:
        try:
            decode(data)
        except (msgspec.DecodeError, RecursionError):
            return False
        return True

    return fits


def _type_of(schema: object, depth: int) -> Any:
    """
    Raises:
        _NotPlainError: no type says this.
    """
    if not isinstance(schema, dict) or depth > _DEPTH_MAX:
        raise _NotPlainError
    said = {key: value for key, value in schema.items() if key not in _NOTES}
    if set(said) <= {"type", "enum"} and "enum" in said:
        return _enumerated(said)
    kind = said.pop("type", None)
    if kind == "object":
        return _object(said, depth)
    if kind == "array":
        items = _type_of(said.pop("items"), depth + 1) if "items" in said else msgspec.Raw
        return _with(GenericAlias(list, (items,)), said, _LENGTHS["array"])
    if kind == "string":
        return _with(str, said, _LENGTHS["string"])
    if kind in ("integer", "number"):
        return _with(int if kind == "integer" else float, said, _BOUNDS)
    if kind == "boolean" and not said:
        return bool
    raise _NotPlainError


def _enumerated(said: Mapping[str, object]) -> Any:
    values = said["enum"]
    if (
        said.get("type", "string") != "string"
        or not isinstance(values, list)
        or not values
        or not all(isinstance(value, str) for value in values)
    ):
        raise _NotPlainError
    return Literal[tuple(values)]


def _object(said: dict[str, Any], depth: int) -> Any:
    properties: dict[str, object] = said.pop("properties", {})
    required: list[str] = said.pop("required", [])
    if said or not set(required) <= set(properties):
        raise _NotPlainError
    fields: list[Any] = []
    names = {}
    for number, (name, schema) in enumerate(properties.items()):
        field = f"f{number}"
        names[field] = name
        kind = _type_of(schema, depth + 1)
        if name in required:
            fields.append((field, kind))
        else:
            fields.append((field, kind | msgspec.UnsetType, msgspec.UNSET))
    return msgspec.defstruct("Data", fields, rename=names, kw_only=True, gc=False)


def _with(kind: Any, said: Mapping[str, Any], known: Mapping[str, str]) -> Any:
    """The type, with constraints."""
    if not set(said) <= set(known):
        raise _NotPlainError
    for bound in said.values():
        if not math.isfinite(bound) or abs(bound) > _EXACT_MAX:
            raise _NotPlainError
    if not said:
        return kind
    return Annotated[kind, msgspec.Meta(**{known[key]: value for key, value in said.items()})]
