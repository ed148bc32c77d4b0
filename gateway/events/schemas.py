"""Which events are let in: a JSON Schema (2020-12) for each message type.

Checking costs what the event costs: patterns are matched in linear time (lookaround and
back-references are refused when the schema is compiled), nothing is fetched from anywhere, and the
detail of an offence is bounded. `format` is enforced, not just noted.

The library is `jsonschema-rs`, compiled once. Before it, `quick_check.py` accepts most of the
events that fit a plain schema, in less time than it takes to decode them.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Final, Literal
from urllib.parse import urldefrag, urlsplit

import jsonschema_rs
import msgspec

from gateway.events.errors import SchemaError
from gateway.events.quick_check import quick_check
from tidegate.wire.grammar import is_message_type

BASE_URI: Final = "tidegate:///"
"""Schemas of a folder refer to each other by file name: `"$ref": "common.json#/$defs/percent"`."""
METASCHEMA: Final = "https://json-schema.org/draft/2020-12/schema"
SCHEMA_BYTES_MAX: Final = 1 << 20
SCHEMAS_MAX: Final = 4_096
DETAIL_CHARS_MAX: Final = 200
OTHER: Final = "other"
"""Label of all types without a schema, so that devices cannot invent labels."""

UnknownType = Literal["allow", "reject"]
Document = dict[str, object] | bool

_PATTERNS: Final = jsonschema_rs.RegexOptions(size_limit=1 << 20, dfa_size_limit=1 << 20)
_decode = msgspec.json.decode


class SchemaSet:
    """The schemas of one folder, compiled."""

    def __init__(
        self,
        validators: Mapping[str, jsonschema_rs.Validator],
        quick: Mapping[str, Callable[[bytes], bool]],
        unknown_type: UnknownType,
    ) -> None:
        self._validators = dict(validators)
        self._quick = dict(quick)
        self._unknown_type = unknown_type

    def __len__(self) -> int:
        return len(self._validators)

    @property
    def types(self) -> tuple[str, ...]:
        """Message types that have a schema."""
        return tuple(self._validators)

    def label(self, message_type: str) -> str:
        """A metric label for a type."""
        return message_type if message_type in self._validators else OTHER

    def check(self, message_type: str, data: bytes) -> str | None:
        """What is wrong with the `data` of an event, None if nothing is.

        Args:
            message_type: its type.
            data: JSON that has been read as such before.
        """
        quick = self._quick.get(message_type)
        if quick is not None and quick(data):
            return None
        validator = self._validators.get(message_type)
        if validator is None:
            if self._unknown_type == "allow":
                return None
            return f"there is no schema for type {message_type}"
        try:
            value = _decode(data)
        except msgspec.DecodeError as exc:
            return f"data: {exc}"
        except RecursionError:
            return "data: it is nested too deep"
        if validator.is_valid(value):
            return None
        return _offence(validator, value)


def compile_schemas(files: Mapping[str, bytes], unknown_type: UnknownType) -> SchemaSet:
    """Compile the schemas of a folder.

    Args:
        files: content by file name; `battery.low.json` is the schema of type `battery.low`. What
            others refer to may stand under any name.
        unknown_type: what becomes of events whose type has no schema.

    Raises:
        SchemaError: with a line for each file that cannot be used.
    """
    if len(files) > SCHEMAS_MAX:
        raise SchemaError(f"{len(files)} schemas; {SCHEMAS_MAX} at most")
    problems: list[str] = []
    documents: dict[str, Document] = {}
    for name, content in files.items():
        try:
            if not is_message_type(name.removesuffix(".json")):
                raise SchemaError(f"{name}: the name is no message type")  # noqa: TRY301  # named like the faults below
            documents[name] = parse_schema(name, content)
        except SchemaError as exc:
            problems.append(str(exc))
    if problems:
        raise SchemaError("\n".join(problems))
    registry = registry_of(documents)
    validators: dict[str, jsonschema_rs.Validator] = {}
    for name, document in documents.items():
        try:
            validators[name.removesuffix(".json")] = validator_of(name, document, registry)
        except SchemaError as exc:
            problems.append(str(exc))
    if problems:
        raise SchemaError("\n".join(problems))
    quick = {
        name.removesuffix(".json"): check
        for name, document in documents.items()
        if (check := quick_check(document)) is not None
    }
    return SchemaSet(validators, quick, unknown_type)


def _dangling(documents: Mapping[str, Document]) -> list[str]:
    """References to what is not in the folder: the library would name the target alone."""
    known = {BASE_URI + name for name in documents} | {METASCHEMA}
    known |= {found for each in documents.values() for found in _texts(each, "$id")}
    return [
        f"{name}: it refers to {reference}, which is not in the folder"
        for name, document in documents.items()
        for reference in _texts(document, "$ref")
        if not reference.startswith("#") and _absolute(reference) not in known
    ]


def _absolute(reference: str) -> str:
    target = urldefrag(reference).url
    return target if urlsplit(target).scheme else BASE_URI + target.removeprefix("./")


def _texts(value: object, key: str) -> Iterator[str]:
    """Every string that stands under `key`, at any depth."""
    pending = [value]
    while pending:
        each = pending.pop()
        if isinstance(each, dict):
            text = each.get(key)
            if isinstance(text, str):
                yield text
            pending += each.values()
        elif isinstance(each, list):
            pending += each


def parse_schema(name: str, content: bytes) -> Document:
    """
    Raises:
        SchemaError: it is too large, not JSON, or no schema document.
    """
    if len(content) > SCHEMA_BYTES_MAX:
        raise SchemaError(f"{name}: {len(content)} bytes; {SCHEMA_BYTES_MAX} at most")
    try:
        document: Document = _decode(content, type=dict[str, object] | bool)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as exc:
        raise SchemaError(f"{name}: {exc}") from None
    return document


def registry_of(documents: Mapping[str, Document]) -> jsonschema_rs.Registry:
    """What schemas of a folder may refer to: each other.

    Raises:
        SchemaError: one refers to what is not there, or declares an `$id` or anchor that makes no
            sense.
    """
    dangling = _dangling(documents)
    if dangling:
        raise SchemaError("\n".join(dangling))
    try:
        return jsonschema_rs.Registry(
            [(BASE_URI + name, document) for name, document in documents.items()]
        )
    except (ValueError, jsonschema_rs.ReferencingError) as exc:
        raise SchemaError(f"schemas: {_first_line(exc)}") from None


def validator_of(
    name: str, document: Document, registry: jsonschema_rs.Registry
) -> jsonschema_rs.Validator:
    """
    Raises:
        SchemaError: it is no valid schema, refers to what is not there, or has a pattern that
            cannot be matched in linear time.
    """
    try:
        return jsonschema_rs.Draft202012Validator(
            document,
            registry=registry,
            base_uri=BASE_URI + name,
            offline=True,
            validate_formats=True,
            ignore_unknown_formats=False,
            pattern_options=_PATTERNS,
        )
    except (ValueError, jsonschema_rs.ReferencingError) as exc:
        raise SchemaError(f"{name}: {_first_line(exc)}") from None


def _offence(validator: jsonschema_rs.Validator, value: object) -> str:
    """`data.soc: 170 is greater than the maximum of 100`, bounded."""
    try:
        validator.validate(value)
    except jsonschema_rs.ValidationError as exc:
        place = "".join(
            f"[{part}]" if isinstance(part, int) else f".{part}" for part in exc.instance_path
        )
        said = f"data{place}: {exc.message}"
        return said if len(said) <= DETAIL_CHARS_MAX else said[: DETAIL_CHARS_MAX - 3] + "..."
    return "data: it does not fit its schema"


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
