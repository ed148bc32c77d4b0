"""`[[rule]]` of an events file: which events, where to, and how hard to try."""

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Final, Literal

from pydantic import Field, PlainValidator, field_validator
from pydantic_core import PydanticCustomError

from gateway.events.columns import Source
from gateway.events.destinations import Destination, NatsDestination, destination_of
from gateway.events.errors import PatternError
from gateway.events.filters import subjects, types_of
from gateway.events.patterns import Pattern, parse_pattern
from gateway.events.sections import Section, source_of, start_of, token

RULES_MAX: Final = 1_000
ATTEMPTS_MAX: Final = 1_000
_BATCH: Final = 2_000
_BATCHES_OF_REQUESTS: Final = 8
_BATCH_BYTES: Final = 8_388_608


def _pattern(written: Any) -> Pattern:
    if isinstance(written, Pattern):
        return written
    try:
        return parse_pattern(written)
    except PatternError as exc:
        # The place within the pattern joins the key's: rule "low".when.data.soc[0].
        context = {"place": exc.place, "detail": exc.detail}
        raise PydanticCustomError("pattern", "{detail}", context) from None


class Rule(Section):
    """Events that match a pattern go to a target."""

    name: str
    when: Annotated[Pattern, PlainValidator(_pattern)]
    to: Annotated[Destination, PlainValidator(destination_of)]
    pick: Annotated[
        Mapping[str, Annotated[Source, PlainValidator(source_of)]] | None, Field(min_length=1)
    ] = None
    """What the payload consists of; without, it is the event's data."""
    start: Annotated[
        Literal["start", "now"] | datetime, Field(alias="from"), PlainValidator(start_of)
    ] = "now"
    """Where a rule that has no position begins. A new rule does not replay the past by itself."""
    attempts: Annotated[int, Field(ge=1, le=ATTEMPTS_MAX)] = 10
    """How often one event is tried before it is a dead letter; an absent NATS is no attempt."""
    concurrency: Annotated[int, Field(ge=1, le=1_000)] = 16
    """Requests that are under way at once; of one device there is never more than one."""
    timeout_ms: Annotated[int, Field(ge=50, le=300_000)] = 10_000
    """How long one request may take."""
    retry_ms: Annotated[int, Field(ge=10, le=60_000)] = 500
    """The longest wait before the second attempt; it doubles from attempt to attempt."""
    retry_max_ms: Annotated[int, Field(ge=10, le=3_600_000)] = 60_000
    """The longest wait of all, `Retry-After` included."""

    _name = field_validator("name")(token)

    @property
    def batch(self) -> int:
        """Events that are delivered together, at most; the position moves behind all of them.

        Of requests they are few: after a kill they are sent again.
        """
        if isinstance(self.to, NatsDestination):
            return _BATCH
        return min(_BATCH, _BATCHES_OF_REQUESTS * self.concurrency)

    @property
    def batch_bytes(self) -> int:
        """Bytes of them."""
        return _BATCH_BYTES

    @property
    def linger_ms(self) -> int:
        """A rule waits for nothing: a batch is what came while the last one was delivered."""
        return 0

    @property
    def subjects(self) -> tuple[str, ...]:
        """Filter subjects for the server, without overlaps."""
        return subjects(types_of(self.when) or ())
