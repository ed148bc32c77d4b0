"""What can be wrong with events and with what is said about them.

EventsError
 +-- EventsFileError   config/events.toml cannot be used: a line for each offence, naming its place
 +-- PatternError      a rule's pattern is wrong: the place in it and the offence
 +-- PickError         one event has no payload by a rule's `pick`: it is a dead letter
 +-- RedriveError      a dead letter cannot be sent again: the reason
 +-- SchemaError       schemas cannot be used: a line for each file, naming the offence
 +-- ColumnError       a sink's column does not fit its table
 +-- RowError          one event cannot become a row: it is a dead letter
 +-- PositionError     a consumer's position does not fit the stream: an operator must decide
      +-- StreamReplaced   the stream was deleted and made again
      +-- StreamWentBack   the stream holds less than was read, or other messages
"""

from typing import Final


class EventsError(Exception):
    """Root of this room."""


class EventsFileError(EventsError):
    """The events file cannot be used. The message has a line for each offence."""


class PatternError(EventsError):
    """A pattern cannot be used.

    `place` is where in the pattern (`.data.soc[0].numeric`, empty for all of it), `detail` what is
    wrong there.
    """

    def __init__(self, place: str, detail: str) -> None:
        super().__init__(f"{place.removeprefix('.')}: {detail}" if place else detail)
        self.place = place
        self.detail = detail


class PickError(EventsError):
    """An event has no payload by a rule's `pick`; the message says why."""


class RedriveError(EventsError):
    """A dead letter cannot be sent again; the message says why."""


class SchemaError(EventsError):
    """Schemas cannot be used. The message has a line for each file that is at fault."""


class ColumnError(EventsError):
    """A column of a sink does not fit the table; the message names sink, table and column."""


class RowError(EventsError):
    """An event cannot become a row of its sink's table.

    `column` is the column's name, `detail` what is wrong with the value.
    """

    def __init__(self, column: str, detail: str) -> None:
        super().__init__(f"column {column}: {detail}")
        self.column = column
        self.detail = detail


class PositionError(EventsError):
    """A consumer cannot read on from its position; the message tells the operator what to do."""


_WAYS_ON: Final = (
    "Put its target back from the same backup, give the consumer a new name, or rebuild its target"
    " (--rebuild)."
)


class StreamReplaced(PositionError):
    def __init__(self, was: str, now: str) -> None:
        super().__init__(
            f"the stream was made at {now}; this consumer has read one made at {was}, whose"
            f" sequences mean other messages. {_WAYS_ON}"
        )


class StreamWentBack(PositionError):
    def __init__(self, detail: str) -> None:
        super().__init__(
            f"the stream went back ({detail}): an older copy was restored, or power was lost"
            f" without fsync. {_WAYS_ON}"
        )
