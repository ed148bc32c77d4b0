"""One value of an event as a cell of COPY's text format.

A cell is made from the JSON text of a value, not from the value: a number keeps the digits that the
device sent. Only the column's type is checked here (kind, range); the database checks constraints.

Text format: PostgreSQL documentation, "COPY", section "Text Format".
"""

import enum
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from functools import lru_cache, partial
from math import isinf
from typing import Final

import msgspec

from gateway.events.errors import RowError
from tidegate.wire.grammar import is_timestamp

NULL: Final = b"\\N"
_INTEGER_CHARS_MAX: Final = 40
"""Longer numbers are not converted: no integer column holds them."""
_EXPONENT_MAX: Final = 40
_SHOWN_CHARS_MAX: Final = 60


@dataclass(frozen=True, slots=True)
class TableColumn:
    """A column as the catalogue has it. `type_name` is the name in pg_type, such as `int4`."""

    name: str
    type_name: str
    not_null: bool = False
    has_default: bool = False
    generated: bool = False


class Kind(enum.Enum):
    """What a column can hold, as far as this module tells kinds apart."""

    TEXT = "a string"
    INTEGER = "an integer"
    FLOAT = "a number"
    NUMERIC = "a decimal number"
    BOOLEAN = "a boolean"
    TIME = "an RFC 3339 date-time with offset"
    JSON = "JSON"
    OTHER = "a string for PostgreSQL to read"

    @staticmethod
    def of(type_name: str) -> "Kind":
        return _KINDS.get(type_name, Kind.OTHER)


_KINDS: Final = {
    "text": Kind.TEXT,
    "varchar": Kind.TEXT,
    "bpchar": Kind.TEXT,
    "int2": Kind.INTEGER,
    "int4": Kind.INTEGER,
    "int8": Kind.INTEGER,
    "float4": Kind.FLOAT,
    "float8": Kind.FLOAT,
    "numeric": Kind.NUMERIC,
    "bool": Kind.BOOLEAN,
    "timestamptz": Kind.TIME,
    "timestamp": Kind.TIME,
    "date": Kind.TIME,
    "json": Kind.JSON,
    "jsonb": Kind.JSON,
}
_INTEGER_BITS: Final = {"int2": 16, "int4": 32, "int8": 64}
_INTEGER_DIGITS: Final = {"int2": 4, "int4": 9, "int8": 18}
"""So many digits fit into the type, whatever they are."""

Convert = Callable[[bytes], bytes]
"""Makes a cell of a value's JSON text, which is valid and never `null`. Raises RowError."""


def converter(column: TableColumn) -> Convert:
    """What makes cells for `column`.

    A sink spends most of its CPU here, so what is common takes a short way: JSON text that is known
    to be valid and to fit from its first character and its length.
    """
    kind = Kind.of(column.type_name)
    convert = partial(_CONVERTERS[kind], column)
    short_way = _SHORT_WAYS.get(kind)
    return convert if short_way is None else short_way(column, convert)


def integer_cell(column: TableColumn, value: int) -> bytes:
    """A number of ours, such as a stream sequence.

    Raises:
        RowError: it is beyond the column's range.
    """
    limit = 1 << (_INTEGER_BITS.get(column.type_name, 64) - 1)
    if not -limit <= value < limit:
        raise RowError(column.name, f"{value} is beyond {column.type_name}")
    return b"%d" % value


def time_of_ns(ns: int) -> bytes:
    """Unix nanoseconds as a timestamp with microseconds, which is what PostgreSQL keeps."""
    second, rest = divmod(ns, 1_000_000_000)
    return b"%b.%06d+00" % (_second(second), rest // 1000)


def escaped(text: bytes) -> bytes:
    """`text` with COPY's escapes; JSON text may hold line ends between its tokens."""
    if b"\\" in text:
        text = text.replace(b"\\", b"\\\\")
    if b"\n" in text or b"\t" in text or b"\r" in text:
        text = text.replace(b"\n", b"\\n").replace(b"\t", b"\\t").replace(b"\r", b"\\r")
    return text


def _text(column: TableColumn, text: bytes) -> bytes:
    if not text.startswith(b'"'):
        raise _no_fit(column, text)
    decoded = _string(text)
    if "\0" in decoded:
        raise RowError(column.name, "PostgreSQL stores no NUL character (\\u0000) in text")
    return escaped(decoded.encode())


def _time(column: TableColumn, text: bytes) -> bytes:
    if not text.startswith(b'"') or not is_timestamp(decoded := _string(text)):
        raise _no_fit(column, text)
    return decoded.encode()


def _integer(column: TableColumn, text: bytes) -> bytes:
    value = _whole(text)
    if value is None:
        raise _no_fit(column, text)
    limit = 1 << (_INTEGER_BITS[column.type_name] - 1)
    if not -limit <= value < limit:
        raise RowError(column.name, f"{_shown(text)} is beyond {column.type_name}")
    return b"%d" % value


def _number(column: TableColumn, text: bytes) -> bytes:
    if not _is_number(text):
        raise _no_fit(column, text)
    if column.type_name.startswith("float") and isinf(float(text)):
        raise RowError(column.name, f"{_shown(text)} is beyond {column.type_name}")
    return text


def _boolean(column: TableColumn, text: bytes) -> bytes:
    if text not in (b"true", b"false"):
        raise _no_fit(column, text)
    return text


def _json(_column: TableColumn, text: bytes) -> bytes:
    return escaped(text)


_CONVERTERS: Final[dict[Kind, Callable[[TableColumn, bytes], bytes]]] = {
    Kind.TEXT: _text,
    Kind.OTHER: _text,
    Kind.TIME: _time,
    Kind.INTEGER: _integer,
    Kind.FLOAT: _number,
    Kind.NUMERIC: _number,
    Kind.BOOLEAN: _boolean,
    Kind.JSON: _json,
}


def _short_integer(column: TableColumn, convert: Convert) -> Convert:
    digits_max = _INTEGER_DIGITS[column.type_name]

    def cell(text: bytes) -> bytes:
        return text if len(text) <= digits_max and text.isdigit() else convert(text)

    return cell


def _short_number(_column: TableColumn, convert: Convert) -> Convert:
    def cell(text: bytes) -> bytes:
        short = len(text) <= _SHORT_NUMBER_BYTES and text[0] in _NUMBER_BEGINS
        return text if short and _E not in text and _CAPITAL_E not in text else convert(text)

    return cell


def _short_text(_column: TableColumn, convert: Convert) -> Convert:
    def cell(text: bytes) -> bytes:
        # JSON allows no bare control character in a string.
        return text[1:-1] if text[0] == _QUOTE and b"\\" not in text else convert(text)

    return cell


_QUOTE: Final = ord('"')
_E: Final = ord("e")
_CAPITAL_E: Final = ord("E")
_NUMBER_BEGINS: Final = b"-0123456789"
_SHORT_NUMBER_BYTES: Final = 30
"""Without an exponent and so short, a number is within the range of every float and numeric."""
_SHORT_WAYS: Final[dict[Kind, Callable[[TableColumn, Convert], Convert]]] = {
    Kind.INTEGER: _short_integer,
    Kind.FLOAT: _short_number,
    Kind.NUMERIC: _short_number,
    Kind.TEXT: _short_text,
    Kind.OTHER: _short_text,
}

_string = msgspec.json.Decoder(str).decode
_number_fullmatch = re.compile(rb"-?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]{1,6})?").fullmatch


def _is_number(text: bytes) -> bool:
    return _number_fullmatch(text) is not None


def _whole(text: bytes) -> int | None:
    """The value of a JSON number that has no fraction (7, 7.0, 7e0), else None."""
    if len(text) <= _INTEGER_CHARS_MAX and text.removeprefix(b"-").isdigit():
        return int(text)
    if not _is_number(text):
        return None
    number = Decimal(text.decode())
    if number.adjusted() > _EXPONENT_MAX:
        return 1 << 64  # beyond every column, and not worth its digits
    return int(number) if number == number.to_integral_value() else None


def _no_fit(column: TableColumn, text: bytes) -> RowError:
    return RowError(column.name, f"{_shown(text)} is not {Kind.of(column.type_name).value}")


def _shown(text: bytes) -> str:
    shown = text[:_SHOWN_CHARS_MAX].decode(errors="replace")
    return shown + "..." if len(text) > _SHOWN_CHARS_MAX else shown


@lru_cache(maxsize=1024)
def _second(second: int) -> bytes:
    return datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%d %H:%M:%S").encode()
