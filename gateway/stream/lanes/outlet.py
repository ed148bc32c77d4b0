"""The way of one session into the stream: headers, lane, and what is known of its outbox."""

from collections.abc import Callable, Mapping
from time import perf_counter

from msgspec import UNSET

from gateway.session.intake import Storable
from gateway.session.owner import MessageOwner
from gateway.stream.commands.chains import Chains, Mark
from gateway.stream.lanes.batch import RUN_MIN, Pending, Run
from gateway.stream.lanes.dead_letters import write_letter
from gateway.stream.lanes.encoding import SourceHeaders
from gateway.stream.lanes.publisher import Publisher
from gateway.stream.lanes.standing import NEVER
from gateway.stream.lanes.tracing import MessageTrace, Sampler
from tidegate.wire.frames import Message, Unusable


class SessionOutlet:
    """Turns a session's messages into envelopes and submits them in order."""

    __slots__ = (
        "_chains",
        "_clock",
        "_headers",
        "_key",
        "_lane",
        "_mark",
        "_owner",
        "_pending",
        "_sample",
        "_standing",
    )

    def __init__(
        self,
        publisher: Publisher,
        sample: Sampler | None = None,
        mark: Mark | None = None,
        chains: Chains | None = None,
        *,
        tenant: str,
        device: str,
        outbox: str,
        owner: MessageOwner,
        clock: Callable[[], float] = perf_counter,
    ) -> None:
        """
        Args:
            publisher: of the node.
            sample: see `Sampler`; None if no message is sampled.
            mark: see `Mark`; None if no message is marked.
            chains: of the node; None if no message goes on with one.
            tenant: of the device.
            device: its id.
            outbox: the outbox it sends from.
            owner: hears what is settled.
            clock: monotonic seconds. Not `loop.time()`, which uvloop keeps in whole milliseconds.
        """
        self._clock = clock
        self._pending = publisher.pending
        self._sample = sample
        self._mark = mark
        self._chains = chains
        self._key = tenant, device
        self._standing = publisher.standings.of(tenant, device, outbox, clock())
        self._lane = publisher.lane_of(self._standing.device)
        self._headers = SourceHeaders(tenant, device, outbox)
        self._owner = owner

    def store(self, messages: list[Storable], received_at: str) -> None:
        """Store events in EVENTS, and what is no event in DEADLETTERS, in their order.

        Args:
            messages: of one frame.
            received_at: RFC 3339; the time of those that bring none.
        """
        chains, sample, standing = self._chains, self._sample, self._standing
        mark = chains.marking(self._key, self._mark) if chains else self._mark
        first, now = messages[0].seq, self._clock()
        absent_at = letter_absent_at = now
        if first > standing.doubt_seq:
            if now > standing.renew_at or standing.unsure:
                standing.sent_first(first, now)
        else:
            # These may be stored already, and duplicates show within one stream only. Under another
            # schema a message may have gone to the other stream, so that one must be asked.
            absent_at = NEVER if first <= standing.letter_seq else standing.absent_at(first)
            letter_absent_at = NEVER
            if standing.unsure:
                self._lane.distrust(standing)
        traces = sample(messages, standing.key) if sample is not None else None
        if (
            len(messages) >= RUN_MIN
            and letter_absent_at is now
            and not traces
            and mark is None
            and self._lane.takes_runs
        ):
            run = self._run_of(messages, received_at, now)
            if run is not None:
                self._lane.submit_run(run)
                return
        items = self._items_of(messages, received_at, mark, traces, absent_at, letter_absent_at)
        if letter_absent_at is NEVER:
            for item in items:
                if item.absent_at == NEVER:
                    # A look-up on its way may be from before another node stored the message.
                    item.ask_after = now
        self._lane.submit(items, sum([item.size for item in items]))

    def _run_of(self, messages: list[Storable], received_at: str, now: float) -> Run | None:
        """These messages as one, if all of them are events."""
        count, headers = len(messages), self._headers
        events: list[Message] = []
        size = count * headers.common_bytes
        for message in messages:
            if type(message) is not Message:
                return None
            events.append(message)
            size += len(message.data)
        return Run(self._owner, self._standing, events, headers, received_at, size, now)

    def _items_of(
        self,
        messages: list[Storable],
        received_at: str,
        mark: Mark | None,
        traces: Mapping[int, MessageTrace] | None,
        absent_at: float,
        letter_absent_at: float,
    ) -> list[Pending]:
        """These messages one by one, each with its bytes."""
        headers, owner, standing = self._headers, self._owner, self._standing
        items = []
        more, trace = b"", None
        for message in messages:
            if type(message) is Message:
                time = received_at if message.time is UNSET else message.time
                if traces or mark is not None:
                    more, trace = _added(message, mark, traces)
                envelope = headers.event(message.seq, message.type, time, message.data, more)
                size = len(envelope.command) + len(envelope.body)
                items.append(
                    Pending(owner, standing, message.seq, envelope, size, absent_at, trace)
                )
            else:
                assert isinstance(message, Unusable)
                items.append(self._letter(message, received_at, letter_absent_at))
        return items

    def _letter(self, message: Unusable, received_at: str, absent_at: float) -> Pending:
        """A message that is no event, on its way into DEADLETTERS."""
        standing, seq, reject = self._standing, message.seq, (message.error, message.detail)
        standing.letter_seq = max(standing.letter_seq, seq)
        envelope = write_letter(
            self._headers, seq, *reject, received_at, message.raw, message.original_bytes
        )
        item = Pending(self._owner, standing, seq, envelope, envelope.size, absent_at)
        item.reject = reject
        return item

    @property
    def full(self) -> bool:
        """Whether the node holds all it may."""
        return self._pending.full

    def when_drained(self, callback: Callable[[], None]) -> None:
        """Call `callback` once there is room again."""
        self._pending.when_drained(callback)


def _added(
    message: Message, mark: Mark | None, traces: Mapping[int, MessageTrace] | None
) -> tuple[bytes, MessageTrace | None]:
    """The header lines of one message that not every message has, and its trace if it has one."""
    more = b"" if mark is None else mark(message.type, bytes(message.data))
    trace = traces.get(message.seq) if traces else None
    return (more, None) if trace is None else (trace.header + more, trace)
