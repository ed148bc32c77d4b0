"""What the sections of an events file have in common: sources of values, names, where to begin."""

import difflib
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, PlainValidator, field_validator

from gateway.events.columns import MEMBERS, Constant, DataPath, EventMember, Source
from gateway.events.filters import is_type_pattern, subjects
from tidegate.wire.grammar import is_token

_DATA_PREFIX: Final = "data."


class Section(BaseModel):
    """A table of the file: an unknown key is an error."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        hide_input_in_errors=True,
        defer_build=True,  # most processes read no such file, and building takes 70 ms
    )


def source_of(written: Any) -> Source:
    """The source that is written as a member, a path, or `{ constant = "gateway-1" }`.

    Raises:
        ValueError: it is none of these; pydantic names the place.
    """
    if isinstance(written, EventMember | DataPath | Constant):
        return written
    if isinstance(written, dict) and list(written) == ["constant"]:
        value = written["constant"]
        if isinstance(value, str | int | float):
            return Constant(value)
    if not isinstance(written, str):
        raise ValueError(  # noqa: TRY004  # pydantic hears a ValueError only
            "write a member, a path that begins with data., or { constant = ... }"
        )
    member = next((each for each in MEMBERS if each == written), None)
    if member is not None:
        return EventMember(member)
    names = tuple(written.removeprefix(_DATA_PREFIX).split("."))
    if written.startswith(_DATA_PREFIX) and all(names):
        return DataPath(names)
    close = difflib.get_close_matches(written, MEMBERS, n=1, cutoff=0.5)
    raise ValueError(
        f"{written!r} is neither a member of an event ({', '.join(MEMBERS)}) nor a path that"
        " begins with data." + (f"; did you mean {close[0]}?" if close else "")
    )


def token(name: str) -> str:
    """A name that can stand in subjects and ids.

    Raises:
        ValueError: it cannot.
    """
    if not is_token(name):
        raise ValueError("a name matches [A-Za-z0-9_-]{1,64}")
    return name


def type_patterns(types: tuple[str, ...]) -> tuple[str, ...]:
    """Types, and prefixes of types.

    Raises:
        ValueError: one is neither.
    """
    for pattern in types:
        if not is_type_pattern(pattern):
            raise ValueError(f"{pattern!r} is neither a type nor a prefix that ends with a dot")
    return types


def start_of(written: Any) -> Any:
    """Where a consumer begins, a time in UTC.

    Raises:
        ValueError: it is neither "start", "now" nor a time with offset.
    """
    if written in ("start", "now"):
        return written
    if not isinstance(written, datetime) or written.tzinfo is None:
        raise ValueError('write "start", "now" or a time with offset: 2026-11-23T10:00:00Z')
    return written.astimezone(UTC)


class Reading(Section):
    """What every consumer says of its reading."""

    name: str
    types: tuple[str, ...] = ()
    """Literal types, or prefixes that end with a dot. Empty means every type."""
    start: Annotated[
        Literal["start", "now"] | datetime, Field(alias="from"), PlainValidator(start_of)
    ] = "start"
    """Where a consumer that has no position begins."""

    _name = field_validator("name")(token)
    _types = field_validator("types")(type_patterns)

    @property
    def subjects(self) -> tuple[str, ...]:
        """Filter subjects for the server, without overlaps."""
        return subjects(self.types)
