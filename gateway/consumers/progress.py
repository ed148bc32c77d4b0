"""How far one consumer has come, and whether the stream is still the one that it has read."""

import nats.errors
import structlog

from gateway.consumers.errors import TargetAway
from gateway.consumers.lag import Lag
from gateway.consumers.target import Consumption, SinkObserver
from gateway.events.event import Event
from gateway.events.position import Position, StreamState, resume
from gateway.stream.errors import StreamMissing
from gateway.stream.link.client import LinkClient
from gateway.stream.names import EVENTS
from gateway.stream.provisioning.inspection import message_id_at, stream_facts
from gateway.stream.reading.reader import Link, StartAt

_log = structlog.get_logger(__name__)


class Progress:
    """The position of one consumer, as its target has acknowledged it."""

    def __init__(self, consumer: Consumption, link: Link, lag: Lag, observer: SinkObserver) -> None:
        """
        Args:
            consumer: its section of the events file.
            link: the connection to NATS.
            lag: hears of the stream.
            observer: hears of what expired.
        """
        self._consumer = consumer
        self._link = link
        self._lag = lag
        self._observer = observer
        self._doubt_until = 0
        self._in_doubt = False
        self.position: Position | None = None

    @property
    def seq(self) -> int:
        """The last stream sequence that is processed."""
        return self.position.seq if self.position is not None else 0

    async def first(self) -> Position:
        """The position of a consumer that has none yet.

        Raises:
            TargetAway: the stream does not answer.
        """
        client = await self._link.wait_up()
        try:
            facts = await stream_facts(client, EVENTS)
        except (StreamMissing, nats.errors.Error, TimeoutError) as exc:
            raise TargetAway(f"the stream does not answer: {exc}") from exc
        # A time is looked for by the server when reading begins.
        return Position(facts.created, facts.last_seq if self._consumer.start == "now" else 0)

    def begins(self, position: Position, *, in_doubt: bool) -> None:
        """This process owns the consumer from now on.

        Args:
            position: where it stands.
            in_doubt: whether another owner may have dealt with what is behind the position.
        """
        self.position = position
        self._in_doubt, self._doubt_until = in_doubt, 0

    def doubts(self, first: Event) -> bool:
        """Whether the owner before may have dealt with events from `first` on."""
        return first.stream_seq <= self._doubt_until

    def moved(self, position: Position, last: Event) -> None:
        """Everything up to `last` is processed."""
        self.position = position
        self._lag.written(last)

    def expired(self, sequences: int, first: int) -> None:
        """So many sequences left the stream unread; it begins at `first` now."""
        _log.error(
            "events_expired_unread",
            sink=self._consumer.name,
            sequences=sequences,
            position=self.seq,
            first=first,
        )
        self._observer.expired(self._consumer.name, sequences)

    async def start(self, client: LinkClient, accepted: int) -> StartAt:
        """Where to read on, if the stream is still the one that was read.

        Raises:
            PositionError: it is another one.
            TargetAway: there is no stream.
            nats.errors.Error: JetStream does not answer.
        """
        position = self.position
        assert position is not None
        id_there = None
        try:
            facts = await stream_facts(client, EVENTS)
            self._lag.stream_is(facts)
            # An empty stream that was never written begins at 0, where no message can be asked for.
            if position.seq and facts.first_seq <= position.seq <= facts.last_seq:
                id_there = await message_id_at(client, EVENTS, position.seq)
        except StreamMissing as exc:
            raise TargetAway(str(exc)) from exc  # an operator may be about to make it again
        if self._in_doubt:
            # What the owner before has read was stored by now.
            self._in_doubt, self._doubt_until = False, facts.last_seq
        stream = StreamState(facts.created, facts.first_seq, facts.last_seq)
        start = resume(position, stream, id_there)
        self.position = position.within(stream)
        if start.expired and position.seq:
            self.expired(start.expired, facts.first_seq)
        if accepted > position.seq:
            return StartAt(accepted + 1)
        begin = self._consumer.start
        if not position.seq and not isinstance(begin, str):
            return StartAt(time=begin)
        return StartAt(start.seq)
