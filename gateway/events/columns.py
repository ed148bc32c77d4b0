"""Events as rows: which member of an event goes into which column of a table."""

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, get_args

import msgspec
from msgspec import UNSET

from gateway.events.cells import (
    NULL,
    Kind,
    TableColumn,
    converter,
    escaped,
    integer_cell,
    time_of_ns,
)
from gateway.events.errors import ColumnError, RowError
from gateway.events.event import Event
from gateway.events.paths import PathReader, Texts

Member = Literal[
    "tenant", "device", "type", "outbox", "seq", "time", "stored_at", "stream_seq", "data"
]
MEMBERS: Final[tuple[Member, ...]] = get_args(Member)


@dataclass(frozen=True, slots=True)
class EventMember:
    """A member of the event itself."""

    name: Member


@dataclass(frozen=True, slots=True)
class DataPath:
    """A value inside `data`, by member names from the outside in. What is absent is NULL."""

    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Constant:
    """The same value in every row."""

    value: str | int | float | bool


Source = EventMember | DataPath | Constant

_MEMBER_KINDS: Final[Mapping[Member, frozenset[Kind]]] = {
    "tenant": frozenset({Kind.TEXT, Kind.OTHER}),
    "device": frozenset({Kind.TEXT, Kind.OTHER}),
    "type": frozenset({Kind.TEXT, Kind.OTHER}),
    "outbox": frozenset({Kind.TEXT, Kind.OTHER}),
    "seq": frozenset({Kind.INTEGER, Kind.NUMERIC, Kind.FLOAT}),
    "stream_seq": frozenset({Kind.INTEGER, Kind.NUMERIC, Kind.FLOAT}),
    "time": frozenset({Kind.TIME, Kind.TEXT}),
    "stored_at": frozenset({Kind.TIME, Kind.TEXT}),
    "data": frozenset({Kind.JSON}),
}
_NO_TEXTS: Final[Texts] = ()

Cell = Callable[[Event, Texts], bytes]


class RowEncoder:
    """Turns events into lines of COPY, one a row, in the order of `columns`."""

    def __init__(
        self, columns: Sequence[str], cells: Sequence[Cell], reader: PathReader | None
    ) -> None:
        self.columns = tuple(columns)
        self._cells = tuple(cells)
        self._reader = reader

    def encode(self, event: Event) -> bytes:
        """One line, with its line end.

        Raises:
            RowError: a value does not fit its column.
        """
        texts = _NO_TEXTS
        if self._reader is not None:
            try:
                texts = self._reader.read(event.data)
            except msgspec.DecodeError as exc:
                raise RowError("data", f"the event is not JSON: {exc}") from None
            except RecursionError:
                raise RowError("data", "the event is nested too deep to be read") from None
        return b"\t".join([cell(event, texts) for cell in self._cells]) + b"\n"


def row_encoder(
    sink: str, table: str, sources: Mapping[str, Source], found: Sequence[TableColumn]
) -> RowEncoder:
    """Check a sink's columns against its table and compile them.

    Args:
        sink: its name, for messages.
        table: its table's, likewise.
        sources: what goes into which column.
        found: the table's columns, as the catalogue has them.

    Raises:
        ColumnError: with a line for each column that does not fit.
    """
    where = f"sink {sink}, table {table}, column"
    problems = [
        f"{where} {column.name}: it is NOT NULL, has no default, and the sink gives it no value"
        for column in found
        if column.not_null
        and not (column.has_default or column.generated)
        and column.name not in sources
    ]
    by_name = {column.name: column for column in found}
    paths = list(dict.fromkeys(s.names for s in sources.values() if isinstance(s, DataPath)))
    cells: list[Cell] = []
    for name, source in sources.items():
        try:
            cells.append(_cell(_column(name, by_name), source, paths))
        except ColumnError as exc:
            problems.append(f"{where} {name}: {exc}")
    if problems:
        raise ColumnError("\n".join(problems))
    return RowEncoder(tuple(sources), cells, PathReader(paths) if paths else None)


def _column(name: str, found: Mapping[str, TableColumn]) -> TableColumn:
    column = found.get(name)
    if column is None:
        close = difflib.get_close_matches(name, found, n=1, cutoff=0.5)
        raise ColumnError("there is no such column" + (f"; is it {close[0]}?" if close else ""))
    if column.generated:
        raise ColumnError("the table generates its value")
    return column


def _cell(column: TableColumn, source: Source, paths: Sequence[tuple[str, ...]]) -> Cell:
    if isinstance(source, EventMember):
        if Kind.of(column.type_name) not in _MEMBER_KINDS[source.name]:
            raise ColumnError(f"{column.type_name} cannot hold {source.name}")
        return _member_cell(column, source.name)
    if isinstance(source, Constant):
        try:
            fixed = converter(column)(msgspec.json.encode(source.value))
        except RowError as exc:
            raise ColumnError(f"the constant does not fit: {exc.detail}") from None
        return lambda _event, _texts: fixed
    return _path_cell(column, paths.index(source.names))


def _path_cell(column: TableColumn, place: int) -> Cell:
    convert = converter(column)

    def cell(_event: Event, texts: Texts) -> bytes:
        text = texts[place]
        if text is None or text is UNSET or (value := bytes(text)) == b"null":
            if column.not_null:
                raise RowError(column.name, "the event has no value for it, and it is NOT NULL")
            return NULL
        return convert(value)

    return cell


def _member_cell(column: TableColumn, name: Member) -> Cell:
    # Names are allow-listed by the grammar, and times are checked: neither needs an escape.
    cells: dict[Member, Cell] = {
        "tenant": lambda event, _: event.tenant.encode(),
        "device": lambda event, _: event.subject.split(".", 3)[2].encode(),
        "type": lambda event, _: event.type.encode(),
        "outbox": lambda event, _: event.outbox.encode() or NULL,
        "time": lambda event, _: event.time_text or NULL,
        "seq": lambda event, _: integer_cell(column, event.seq),
        "stream_seq": (
            (lambda event, _: b"%d" % event.stream_seq)
            if column.type_name == "int8"
            else lambda event, _: integer_cell(column, event.stream_seq)
        ),
        "stored_at": lambda event, _: time_of_ns(event.stored_at_ns),
        "data": lambda event, _: escaped(event.data),
    }
    return cells[name]
