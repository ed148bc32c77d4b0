"""`config/events.toml`: what becomes of events, as one document that is checked whole.

An unknown key, a type that is no type or a column that nothing can fill is an error that names its
place (`sink "battery".columns.soc`) and, where it can, the word that was meant. Whether tables and
their columns exist is checked when the sink reaches its database.

`config/events.toml` explains each key; a test keeps the two in step.
"""

import difflib
import tomllib
from collections import Counter
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import (
    BaseModel,
    Discriminator,
    Field,
    PlainValidator,
    Tag,
    ValidationError,
    model_validator,
)
from pydantic_core import ErrorDetails

from gateway.events.columns import EventMember, Source
from gateway.events.errors import EventsFileError
from gateway.events.redrives import redrives_name
from gateway.events.rules import RULES_MAX, Rule
from gateway.events.sections import Reading, Section, source_of

_SINKS_MAX: Final = 64


class Schemas(Section):
    """Which events are let into the stream."""

    folder: Path
    unknown_type: Literal["allow", "reject"] = "allow"
    invalid: Literal["reject", "mark"] = "reject"


class _Batching(Reading):
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
    columns: Annotated[dict[str, Annotated[Source, PlainValidator(source_of)]], Field(min_length=1)]

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


def redrives_of(sink: Sink) -> Sink:
    """The sink as the target of what is sent again to it: it has a position of its own."""
    if isinstance(sink, FilesSink):
        return sink.model_copy(update={"directory": sink.directory / "redrives"})
    return sink.model_copy(update={"name": redrives_name(sink.name)})


class EventsDocument(Section):
    """All of it."""

    schemas: Schemas | None = None
    sinks: Annotated[tuple[_TaggedSink, ...], Field(alias="sink", max_length=_SINKS_MAX)] = ()
    rules: Annotated[tuple[Rule, ...], Field(alias="rule", max_length=RULES_MAX)] = ()

    @model_validator(mode="after")
    def _unique(self) -> Self:
        for kind, names in (
            ("sinks", Counter(sink.name for sink in self.sinks)),
            ("rules", Counter(rule.name for rule in self.rules)),
        ):
            name, count = max(names.items(), key=lambda pair: pair[1], default=("", 0))
            if count > 1:
                raise ValueError(f"two {kind} have the name {name}: a name owns a position")
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
    if len(rest) > 1 and rest[0] in ("sink", "rule"):
        kind = str(rest[0])
        place, rest = _named_place(kind, rest[1], tree[kind]), rest[2:]
        model = Rule
        if rest and kind == "sink":
            model, rest = _SINKS[str(rest[0])], rest[1:]
    elif len(rest) > 1 and rest[0] == "schemas":
        model = Schemas
    place = ".".join(filter(None, [place, *map(str, rest)]))
    place += error.get("ctx", {}).get("place", "")
    if error["type"] == "extra_forbidden":
        known = [field.alias or name for name, field in model.model_fields.items()]
        close = difflib.get_close_matches(str(rest[-1]), known, n=1, cutoff=0.5)
        return f"{place}: unknown key" + (f"; did you mean {close[0]}?" if close else "")
    if error["type"].startswith("union_tag"):
        return f"{place}.kind: it is none of {', '.join(_SINKS)}"
    message = error["msg"].removeprefix("Value error, ")
    return f"{place}: {message}" if place else message


def _named_place(kind: str, number: str | int, sections: list[Any]) -> str:
    section = sections[int(number)]
    name = section.get("name") if isinstance(section, dict) else None
    return f'{kind} "{name}"' if isinstance(name, str) else f"{kind} number {int(number) + 1}"


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
