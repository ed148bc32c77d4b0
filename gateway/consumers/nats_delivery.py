"""Delivery to a subject of NATS: exactly once, if a stream holds the subject.

Each derived message has the id `<tenant>:<device>:rule/<name>:<sequence in EVENTS>`. JetStream
drops a repeated id within its duplicate window only, so no repeat relies on that alone: whenever it
is not known what arrived (another process took over, a publish was not answered), the target is
read from the stored mark on, and what is there is not sent again.

    resume: read the target behind the mark -> known sequences -> deliver all but those

Atomic batches are used where the stream allows them: all of a batch is stored or nothing, in order.
Elsewhere at most one message of a device is under way, so the order per device holds.
"""

import asyncio
import secrets
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

import nats.errors

from gateway.consumers.answers import Answer, AnswerError, Answers
from gateway.consumers.derived import (
    REDRIVE_HEADER,
    Derived,
    derived,
    encode_commit,
    encode_single,
    encode_staged,
    encode_unstored,
)
from gateway.consumers.errors import TargetAway
from gateway.consumers.holding import Holder, holder_of, last_seq
from gateway.consumers.target import Rejected
from gateway.consumers.target_scan import ID_HEADER, delivered_behind
from gateway.events.destinations import NatsDestination
from gateway.events.errors import PickError
from gateway.events.event import Event
from gateway.events.payloads import Picker
from gateway.events.redrives import redrives_name
from gateway.events.rules import Rule
from gateway.stream.errors import StreamMissing
from gateway.stream.nats_client import LinkClient
from gateway.stream.reader import Link

BATCH_MESSAGES_MAX: Final = 500
BATCH_BYTES_MAX: Final = 2 << 20
_FLUSH_S: Final = 5
_BATCH_TOO_LARGE: Final = 10199
_ONE_BY_ONE: Final = frozenset(
    {
        10054,  # one of them is too large
        10097,  # headers too large
        10174,  # batches are not enabled
        10175,
        10176,  # incomplete: one of them may have been refused on its way
        10177,
        10200,
        10201,  # one of them is stored already
        10205,
        10206,  # too many batches at once
    }
)
"""What JetStream says of a batch of which nothing is stored, and that can go one by one."""
_NEVER: Final = {10054: "too_large", 10097: "headers_too_large"}


class NatsDelivery:
    """The target of one rule. Satisfies `Delivery`."""

    def __init__(
        self,
        rule: Rule,
        destination: NatsDestination,
        link: Link,
        guard: Callable[[], None],
        *,
        redrives: bool = False,
    ) -> None:
        """
        Args:
            rule: what the events file says of it.
            destination: its subject.
            link: the connection.
            guard: raises NotOwner if this process must not write any more.
            redrives: whether events come from REDRIVES.
        """
        self._rule = rule
        self._destination = destination
        self._link = link
        self._guard = guard
        self._picker = Picker(rule.pick) if rule.pick is not None else None
        self._client: LinkClient | None = None
        self._answers: Answers | None = None
        self._holder: Holder | None = None
        self._redrives = redrives
        self._known: set[int] = set()
        self.mark = 0

    @property
    def finds_again(self) -> bool:
        return self._holder is not None

    async def open(self) -> None:
        client = self._link.client
        if client is None:
            raise TargetAway("NATS is away")
        self._holder = await holder_of(client, self._rule.name, self._destination.filter)
        if client is not self._client:
            self._client, self._answers = client, Answers(client)
            try:
                await self._answers.open()
            except (nats.errors.Error, TimeoutError) as exc:
                self._client = None
                raise TargetAway(f"NATS does not answer: {exc or type(exc).__name__}") from exc

    async def begin(self) -> None:
        self._known = set()
        if self._holder is not None:
            self.mark = await last_seq(self._open_client(), self._holder.stream)

    async def resume(self, after_seq: int, mark: int) -> None:
        self._known, self.mark = set(), mark
        if self._holder is None:
            return
        last = await last_seq(self._open_client(), self._holder.stream)
        if last < mark:
            self.mark = 0  # the target was made anew
        try:
            self._known = await delivered_behind(
                self._link,
                self._holder.stream,
                [self._destination.filter],
                f":rule/{redrives_name(self._rule.name) if self._redrives else self._rule.name}:",
                mark=self.mark,
                after_seq=after_seq,
                header=REDRIVE_HEADER if self._redrives else ID_HEADER,
            )
        except (StreamMissing, nats.errors.Error, TimeoutError) as exc:
            raise TargetAway(f"the target cannot be read: {exc}") from exc

    async def deliver(self, events: Sequence[Event]) -> Sequence[Rejected]:
        rejected: list[Rejected] = []
        messages = self._made(events, rejected)
        if self._holder is None:
            await self._publish(list(messages))
            return rejected
        stored = await self._store(_chunks(messages), rejected)
        if events:
            last = events[-1].position_seq
            self._known = {seq for seq in self._known if seq > last}
            # What is known lies behind the mark, and must stay findable until it is passed.
            if stored and not self._known:
                self.mark = max(self.mark, stored)
        return rejected

    async def close(self) -> None:
        """The connection is the process's, and its subscription ends with it."""

    def _open_client(self) -> LinkClient:
        if self._client is None:
            raise TargetAway("NATS is away")
        return self._client

    def _open_answers(self) -> Answers:
        if self._answers is None:
            raise TargetAway("NATS is away")
        return self._answers

    def _made(self, events: Sequence[Event], rejected: list[Rejected]) -> Iterator[Derived]:
        """The messages of events, made when they are asked for; `rejected` takes the others."""
        bytes_max = self._open_client().max_payload
        for event in events:
            if self._known and event.position_seq in self._known:
                continue
            try:
                payload = event.data if self._picker is None else self._picker.payload(event)
            except PickError as exc:
                rejected.append(Rejected(event, "pick", str(exc)))
                continue
            subject = self._destination.subject(event)
            message = derived(event, self._rule.name, subject, payload)
            if message.size > bytes_max:
                detail = f"{message.size} bytes are more than NATS takes"
                rejected.append(Rejected(event, "too_large", detail))
            else:
                yield message

    async def _publish(self, messages: Sequence[Derived]) -> None:
        """For whoever listens: no stream holds the subject."""
        if not messages:
            return
        self._guard()
        self._open_answers().write(b"".join(map(encode_unstored, messages)))
        try:
            await self._open_client().flush(timeout=_FLUSH_S)
        except (nats.errors.Error, TimeoutError) as exc:
            raise TargetAway(f"NATS does not answer: {exc or type(exc).__name__}") from exc

    async def _store(self, chunks: Iterator[list[Derived]], rejected: list[Rejected]) -> int:
        """Store chunks one after the other; the target's last sequence then.

        While a batch is committed, the next one is made and sent but for its last message. If the
        batch fails, the one behind it is never committed: it would come first.
        """
        assert self._holder is not None
        stored = 0
        chunk, batch_id = next(chunks, None), b""
        while chunk:
            self._guard()
            if not self._holder.atomic or len(chunk) == 1:
                stored = max(stored, await self._store_in_rounds(chunk, rejected))
                chunk, batch_id = next(chunks, None), b""
                continue
            future = self._commit(chunk, batch_id or self._stage(chunk))
            following = next(chunks, None)
            batch_id = self._stage(following) if following and len(following) > 1 else b""
            (answer,) = await self._open_answers().wait([future])
            if answer.error is not None:
                batch_id = b""
                stored = max(stored, await self._store_otherwise(chunk, answer.error, rejected))
            elif answer.count != len(chunk):
                raise TargetAway(f"{answer.count} of {len(chunk)} messages were stored")
            else:
                stored = answer.seq
            chunk = following
        return stored

    def _stage(self, chunk: Sequence[Derived]) -> bytes:
        """Send all of a batch but its last message; its id."""
        batch_id = secrets.token_hex(11).encode()
        self._open_answers().write(encode_staged(chunk, batch_id))
        return batch_id

    def _commit(self, chunk: Sequence[Derived], batch_id: bytes) -> asyncio.Future[Answer]:
        answers = self._open_answers()
        reply, future = answers.reply()
        answers.write(encode_commit(chunk, batch_id, reply, self._stream))
        return future

    async def _store_otherwise(
        self, chunk: list[Derived], error: AnswerError, rejected: list[Rejected]
    ) -> int:
        """Store a batch that the stream refused as a whole, of which nothing is stored."""
        if error.err_code == _BATCH_TOO_LARGE:
            half = len(chunk) // 2
            return await self._store(iter([chunk[:half], chunk[half:]]), rejected)
        if error.err_code not in _ONE_BY_ONE:
            raise TargetAway(f"the target's stream says: {error.description}")
        return await self._store_in_rounds(chunk, rejected)

    async def _store_in_rounds(self, chunk: Sequence[Derived], rejected: list[Rejected]) -> int:
        """Store them with at most one message of a device under way."""
        answers, stream, stored = self._open_answers(), self._stream, 0
        waiting: dict[tuple[str, str], deque[Derived]] = {}
        for message in chunk:
            device = message.event.tenant, message.event.device
            waiting.setdefault(device, deque()).append(message)
        while waiting:
            self._guard()
            sent = [messages.popleft() for messages in waiting.values()]
            waiting = {device: messages for device, messages in waiting.items() if messages}
            replies = [answers.reply() for _ in sent]
            answers.write(
                b"".join(
                    encode_single(message, reply, stream)
                    for message, (reply, _) in zip(sent, replies, strict=True)
                )
            )
            for message, answer in zip(
                sent, await answers.wait([future for _, future in replies]), strict=True
            ):
                stored = max(stored, _settled(message, answer, rejected))
        return stored

    @property
    def _stream(self) -> bytes:
        assert self._holder is not None
        return self._holder.stream.encode()


def _settled(message: Derived, answer: Answer, rejected: list[Rejected]) -> int:
    """The sequence at which a message is stored, 0 if it never can be.

    Raises:
        TargetAway: it is not stored now.
    """
    if answer.error is None:
        return answer.seq
    error = _NEVER.get(answer.error.err_code)
    if error is None:
        raise TargetAway(f"the target's stream says: {answer.error.description}")
    rejected.append(Rejected(message.event, error, answer.error.description))
    return 0


def _chunks(messages: Iterable[Derived]) -> Iterator[list[Derived]]:
    chunk: list[Derived] = []
    size = 0
    for message in messages:
        if chunk and (len(chunk) >= BATCH_MESSAGES_MAX or size + message.size > BATCH_BYTES_MAX):
            yield chunk
            chunk, size = [], 0
        chunk.append(message)
        size += message.size
    if chunk:
        yield chunk
