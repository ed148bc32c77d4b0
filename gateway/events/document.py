"""`config/events.toml`: what becomes of events, as one document that is checked whole.

An unknown key, a type that is no type or a column that nothing can fill is an error that names its
place (`sink "battery".columns.soc`) and, where it can, the word that was meant. Whether tables and
their columns exist is checked when the sink reaches its database.

`config/events.toml` explains each key; a test keeps the two in step.
"""

import difflib
import tomllib
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    PlainValidator,
    Tag,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_core import ErrorDetails

from gateway.events.columns import MEMBERS, Constant, DataPath, EventMember, Source
from gateway.events.errors import EventsFileError
from gateway.events.filters import is_type_pattern, subjects
from tidegate.wire.grammar import is_token

_DATA_PREFIX: Final = "data."
_SINKS_MAX: Final = 64


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


def _source(written: Any) -> Source:
    """What a column is written as: a member, a path, or `{ constant = "gateway-1" }`."""
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


class Schemas(_Section):
    """Which events are let into the stream."""

    folder: Path
    unknown_type: Literal["allow", "reject"] = "allow"
    invalid: Literal["reject", "mark"] = "reject"


def _token(name: str) -> str:
    if not is_token(name):
        raise ValueError("a name matches [A-Za-z0-9_-]{1,64}")
    return name


def _type_patterns(types: tuple[str, ...]) -> tuple[str, ...]:
    for pattern in types:
        if not is_type_pattern(pattern):
            raise ValueError(f"{pattern!r} is neither a type nor a prefix that ends with a dot")
    return types


def _start(written: Any) -> Any:
    if written in ("start", "now"):
        return written
    if not isinstance(written, datetime) or written.tzinfo is None:
        raise ValueError('write "start", "now" or a time with offset: 2026-11-23T10:00:00Z')
    return written.astimezone(UTC)


class _Reading(_Section):
    """What every consumer says of its reading."""

    name: str
    types: tuple[str, ...] = ()
    """Literal types, or prefixes that end with a dot. Empty is every type."""
    start: Annotated[
        Literal["start", "now"] | datetime, Field(alias="from"), PlainValidator(_start)
    ] = "start"
    """Where a consumer that has no position begins."""

    _name = field_validator("name")(_token)
    _types = field_validator("types")(_type_patterns)

    @property
    def subjects(self) -> tuple[str, ...]:
        """Filter subjects for the server, without overlaps."""
        return subjects(self.types)


class _Batching(_Reading):
    batch: Annotated[int, Field(ge=1, le=100_000)] = 5_000
    """Rows of the largest transaction."""
    batch_bytes: Annotated[int, Field(ge=65_536, le=67_108_864)] = 8_388_608
    """Bytes of its events."""
    linger_ms: Annotated[int, Field(ge=0, le=60_000)] = 200
    """How long the first event of a batch waits for others."""


class PostgresSink(_Batching):
    """Rows in a table."""

    kind: Literal["postgres"] = "postgres"
    table: Annotated[str, Field(pattern=r"^[^\x00\"]{1,128}$")]
    on_conflict: Literal["error", "nothing", "update"] = "error"
    key: tuple[str, ...] = ()
    columns: Annotated[dict[str, Annotated[Source, PlainValidator(_source)]], Field(min_length=1)]

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        unknown = [name for name in self.key if name not in self.columns]
        if unknown:
            raise ValueError(f"key names {unknown[0]}, which is no column of this sink")
        if self.on_conflict == "update":
            if not self.key:
                raise ValueError(
                    'on_conflict = "update" needs key, the columns that identify a row'
                )
            if self.sequence_column is None:
                raise ValueError(
                    'on_conflict = "update" needs a column that is stream_seq: it tells which row'
                    " is newer"
                )
        elif self.key and self.on_conflict == "error":
            raise ValueError('key is for on_conflict = "nothing" or "update"')
        return self

    @property
    def sequence_column(self) -> str | None:
        """The column which holds `stream_seq`, if there is one."""
        wanted = EventMember("stream_seq")
        return next((name for name, source in self.columns.items() if source == wanted), None)


class FilesSink(_Batching):
    """JSON lines in files."""

    kind: Literal["files"]
    directory: Path
    rotate_bytes: Annotated[int, Field(ge=65_536)] = 134_217_728
    rotate_s: Annotated[int, Field(ge=1)] = 3_600


def _kind(sink: Any) -> Any:
    if isinstance(sink, dict):
        return sink.get("kind", "postgres")
    return getattr(sink, "kind", None)


Sink = PostgresSink | FilesSink
_SINKS: Final[dict[str, type[Sink]]] = {"postgres": PostgresSink, "files": FilesSink}
_TaggedSink = Annotated[
    Annotated[PostgresSink, Tag("postgres")] | Annotated[FilesSink, Tag("files")],
    # A sink is read by the model of its kind alone, so that an error names one place.
    Discriminator(_kind),
]


class EventsDocument(_Section):
    """All of it."""

    schemas: Schemas | None = None
    sinks: Annotated[tuple[_TaggedSink, ...], Field(alias="sink", max_length=_SINKS_MAX)] = ()

    @model_validator(mode="after")
    def _unique(self) -> Self:
        names = [sink.name for sink in self.sinks]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"two sinks have the name {name}: a name owns a position")
        return self


def read_events_file(path: Path) -> EventsDocument:
    """Read and check the file. Relative paths in it are relative to its folder.

    Raises:
        EventsFileError: with a line for each offence.
    """
    try:
        tree = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as exc:
        raise EventsFileError(f"{path}: {exc.strerror}") from exc
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as exc:
        raise EventsFileError(f"{path}: {exc}") from exc
    document = parse_events(tree, str(path))
    return _resolved(document, path.parent)


def parse_events(tree: dict[str, Any], name: str) -> EventsDocument:
    """Check what a TOML parser made of an events file.

    Args:
        tree: the document.
        name: of the file, for messages.

    Raises:
        EventsFileError: with a line for each offence.
    """
    try:
        return EventsDocument.model_validate(tree)
    except ValidationError as exc:
        lines = [f"{name}: {_explain(error, tree)}" for error in exc.errors(include_url=False)]
        raise EventsFileError("\n".join(lines)) from None


def _explain(error: ErrorDetails, tree: dict[str, Any]) -> str:
    model: type[BaseModel] = EventsDocument
    place, rest = "", list(error["loc"])
    if len(rest) > 1 and rest[0] == "sink":
        place, rest = _sink_place(rest[1], tree["sink"]), rest[2:]
        if rest:
            model, rest = _SINKS[str(rest[0])], rest[1:]
    elif len(rest) > 1 and rest[0] == "schemas":
        model = Schemas
    place = ".".join(filter(None, [place, *map(str, rest)]))
    if error["type"] == "extra_forbidden":
        known = [field.alias or name for name, field in model.model_fields.items()]
        close = difflib.get_close_matches(str(rest[-1]), known, n=1, cutoff=0.5)
        return f"{place}: unknown key" + (f"; did you mean {close[0]}?" if close else "")
    if error["type"].startswith("union_tag"):
        return f"{place}.kind: it is none of {', '.join(_SINKS)}"
    message = error["msg"].removeprefix("Value error, ")
    return f"{place}: {message}" if place else message


def _sink_place(number: str | int, sinks: list[Any]) -> str:
    sink = sinks[int(number)]
    name = sink.get("name") if isinstance(sink, dict) else None
    return f'sink "{name}"' if isinstance(name, str) else f"sink number {int(number) + 1}"


def _resolved(document: EventsDocument, folder: Path) -> EventsDocument:
    schemas = document.schemas
    if schemas is not None:
        schemas = schemas.model_copy(update={"folder": folder / schemas.folder})
    sinks = tuple(
        sink.model_copy(update={"directory": folder / sink.directory})
        if isinstance(sink, FilesSink)
        else sink
        for sink in document.sinks
    )
    return document.model_copy(update={"schemas": schemas, "sinks": sinks})
