"""Whether a changed schema still lets in every event that the old one let in.

Devices are not updated at once. An event that was written for the old schema must fit the new one,
or the devices which still send it have their events rejected. The library decides by set inclusion
where it can (`covers`); an example makes a "no" plain. What neither proves is "cannot tell".
"""

import enum
import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import jsonschema_rs
from jsonschema_rs.canonical import Containment

from gateway.events.schemas import BASE_URI, Document, validator_of

_EXAMPLES_MAX: Final = 20_000
_DEPTH_MAX: Final = 6
_VALUES_MAX: Final = 40
_LENGTH_MAX: Final = 10_000
"""Longer strings and arrays are not made; the library may still decide."""


class Compatible(enum.Enum):
    YES = "yes"
    NO = "no"
    CANNOT_TELL = "cannot tell"


@dataclass(frozen=True, slots=True)
class Comparison:
    """The verdict, and for a "no" an event that the old schema takes and the new one refuses."""

    verdict: Compatible
    example: str | None = None


def compare(
    name: str, old: Document, new: Document, registry: jsonschema_rs.Registry
) -> Comparison:
    """Whether `new` takes all that `old` takes.

    Args:
        name: file name, for references and messages.
        old: the schema in force.
        new: the one to come.
        registry: what both may refer to.

    Raises:
        SchemaError: one of them cannot be used.
    """
    takes, refuses = validator_of(name, old, registry), validator_of(name, new, registry)
    for example in itertools.islice(_examples(old, new, registry), _EXAMPLES_MAX):
        if takes.is_valid(example) and not refuses.is_valid(example):
            return Comparison(Compatible.NO, json.dumps(example, ensure_ascii=False))
    before, after = (
        jsonschema_rs.canonicalize(
            each,
            draft=jsonschema_rs.Draft202012,
            registry=registry,
            base_uri=BASE_URI + name,
            offline=True,
            validate_formats=True,
            pattern_options=jsonschema_rs.RegexOptions(),
        )
        for each in (old, new)
    )
    covers = after.covers(before)
    if covers == Containment.YES:
        return Comparison(Compatible.YES)
    return Comparison(Compatible.NO if covers == Containment.NO else Compatible.CANNOT_TELL)


def _examples(old: Document, new: Document, registry: jsonschema_rs.Registry) -> Iterator[Any]:
    """Values at the edges of both schemas: the bounds, one beyond, members there and missing."""
    yield from _values([old, new], registry, 0)


def _values(schemas: list[Any], registry: jsonschema_rs.Registry, depth: int) -> Iterator[Any]:
    schemas = [_resolved(each, registry) for each in schemas]
    for schema in schemas:
        yield from schema.get("enum", [])
        if "const" in schema:
            yield schema["const"]
        yield from schema.get("examples", [])
    nested = [
        each
        for schema in schemas
        for key in ("anyOf", "oneOf", "allOf")
        for each in schema.get(key, [])
    ]
    if nested and depth < _DEPTH_MAX:
        yield from _values(nested, registry, depth + 1)
    yield from _objects(schemas, registry, depth)
    yield from _scalars(schemas)
    yield from _arrays(schemas, registry, depth)


def _scalars(schemas: list[dict[str, Any]]) -> Iterator[Any]:
    yield from (None, True, 0, 1, -1, 0.5, "", "x", "2026-11-25T10:00:00Z")
    for schema in schemas:
        for key in ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"):
            bound = schema.get(key)
            if isinstance(bound, int | float) and not isinstance(bound, bool):
                yield from (bound, bound - 1, bound + 1, bound + 0.5)
        for key in ("minLength", "maxLength"):
            length = schema.get(key)
            if isinstance(length, int) and length <= _LENGTH_MAX:
                yield from ("x" * length, "x" * max(0, length - 1), "x" * (length + 1))


def _arrays(
    schemas: list[dict[str, Any]], registry: jsonschema_rs.Registry, depth: int
) -> Iterator[Any]:
    yield []
    if depth >= _DEPTH_MAX:
        return
    items = [schema["items"] for schema in schemas if "items" in schema]
    lengths = {1, 2}
    for schema in schemas:
        for key in ("minItems", "maxItems"):
            if isinstance(schema.get(key), int):
                lengths |= {max(0, schema[key] - 1), schema[key], schema[key] + 1}
    for value in itertools.islice(_values(items or [{}], registry, depth + 1), _VALUES_MAX):
        for length in sorted(each for each in lengths if each <= _LENGTH_MAX):
            yield [value] * length


def _objects(
    schemas: list[dict[str, Any]], registry: jsonschema_rs.Registry, depth: int
) -> Iterator[Any]:
    yield {}
    if depth >= _DEPTH_MAX:
        return
    members: dict[str, list[Any]] = {}
    required: set[str] = set()
    for schema in schemas:
        for name, inner in schema.get("properties", {}).items():
            members.setdefault(name, []).append(inner)
        required |= {name for name in schema.get("required", []) if isinstance(name, str)}
    for name in required:
        members.setdefault(name, [{}])
    values = {
        name: list(itertools.islice(_values(inner, registry, depth + 1), _VALUES_MAX))
        for name, inner in members.items()
    }
    for whole in _bases(schemas, values, registry):
        yield whole
        yield whole | {"unheard_of": 1}
        for name in whole:
            yield {key: value for key, value in whole.items() if key != name}
        for name, several in values.items():
            for value in several:
                yield whole | {name: value}


def _bases(
    schemas: list[dict[str, Any]],
    values: dict[str, list[Any]],
    registry: jsonschema_rs.Registry,
) -> Iterator[dict[str, Any]]:
    """For each schema an object whose members fit it, with all of them and with few."""
    for schema in schemas:
        fitting: dict[str, Any] = {}
        for name, several in values.items():
            inner = schema.get("properties", {}).get(name, True)
            validator = jsonschema_rs.Draft202012Validator(
                inner, registry=registry, base_uri=BASE_URI, offline=True, validate_formats=True
            )
            found = [each for each in several if validator.is_valid(each)]
            if found:
                fitting[name] = found[0]
        yield fitting
        required = schema.get("required", [])
        yield {name: value for name, value in fitting.items() if name in required}


def _resolved(schema: Any, registry: jsonschema_rs.Registry) -> dict[str, Any]:
    if not isinstance(schema, dict):
        return {}
    reference = schema.get("$ref")
    if isinstance(reference, str) and not reference.startswith("#"):
        found = registry.resolver(BASE_URI).lookup(reference).contents
        return {**found, **schema} if isinstance(found, dict) else schema
    return schema
