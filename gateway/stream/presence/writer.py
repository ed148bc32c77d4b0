"""Writes presence facts, behind the messages of devices.

One batch is in flight at a time, on the node's connection. After each batch the writer rests: a
quarter of a second, or after a full batch as long as storing took, and never faster than
`facts_per_s`. So a storm of sessions costs the lanes little. A batch that may not have been stored
is sent again with the same ids, so each fact is stored once within the duplicate window of the
stream; readers order by fence, so a fact that is stored twice does no harm.

Facts are synced as messages are. `persist_mode: async` would spare that, and lose what a power
failure takes: nobody tells again that a device has left. JetStream also refuses it for replicated
streams, and together with atomic batches.
"""

import asyncio
import contextlib
import random
from collections.abc import Callable, Sequence
from typing import Final

import nats.errors
import structlog

from gateway.jitter import full_jitter_s
from gateway.session.presence import Fact, payload_of
from gateway.stream.lanes import pubacks
from gateway.stream.lanes.batch import Answer, Kind, Verdict
from gateway.stream.lanes.encoding import Publication, encode_atomic, encode_plain, publication
from gateway.stream.link.client import LinkClient
from gateway.stream.names import PRESENCE
from gateway.stream.presence.buffer import FactBuffer
from gateway.stream.provisioning.provision import ATOMIC_SINCE, server_version
from gateway.stream.reading.reader import Link
from gateway.stream.server.roles import Role

_log = structlog.get_logger(__name__)

_BATCH_FACTS: Final = 250
"""Some 100 KiB, which the messages behind it on the connection wait for. With fsync each batch is a
sync of the disk too, so that much smaller ones would cost the lanes more."""
_SLICE_FACTS: Final = 50
"""Made into messages in one turn of the loop, some 0.2 ms. After a cut twelve full batches a second
are stored: made at once, they would stop the acks of devices for one per cent of the time."""
_ANSWER_S: Final = 5.0
_FLUSH_S: Final = 5
_RETRY_S: Final = 0.2
_RETRY_MAX_S: Final = 5.0
_REST_S: Final = 0.25
"""After a batch that was not full: with fsync, each batch costs the lanes a sync of the disk."""
_STORED: Final = (Verdict.STORED, Verdict.DUPLICATE)
_EACH: Final = (Verdict.PARTIAL, Verdict.TOO_LARGE)
"""Answers to an atomic batch after which its messages are sent one by one."""
_NO_RESPONDERS: Final = b"NATS/1.0 503"


def message_of(fact: Fact) -> Publication:
    """The message of a fact."""
    line = f"Nats-Msg-Id:{fact.message_id}\r\n".encode()
    return publication(PRESENCE, fact.subject.encode(), line, payload_of(fact))


class PresenceWriter:
    """Stores facts in their order for each device, one batch at a time."""

    def __init__(
        self,
        link: Link,
        buffer: FactBuffer,
        *,
        node: str,
        facts_per_s: float,
        on_stored: Callable[[int, float], None],
        rng: random.Random,
        clock: Callable[[], float],
        now: Callable[[], float],
    ) -> None:
        """
        Args:
            link: to NATS.
            buffer: where facts wait.
            node: name of this process; makes inboxes and batch ids unique.
            facts_per_s: stored at most.
            on_stored: counts the facts of a batch that is stored; the age of its oldest, in s.
            rng: source of jitter.
            clock: monotonic seconds.
            now: the time that facts carry, for their lag, in seconds.
        """
        self._link = link
        self._buffer = buffer
        self._facts_per_s = facts_per_s
        self._on_stored = on_stored
        self._rng = rng
        self._clock = clock
        self._now = now
        self._due = asyncio.Event()
        name = f"{node}-presence"
        self._answers = _Answers(f"{Role.GATEWAY.inbox_prefix}.{name}.", name)
        self._hurried = asyncio.Event()
        self._in_flight = False
        self._landed = asyncio.Condition()

    @property
    def waiting(self) -> int:
        """Facts that are not stored yet, apart from those in flight."""
        return len(self._buffer)

    def add(self, fact: Fact, *, prompt: bool = False) -> None:
        """Store a fact soon; `prompt` facts before those that linger."""
        if self._buffer.add(fact, self._clock(), prompt=prompt):
            self._due.set()

    async def run(self) -> None:
        """Store what comes, for ever."""
        while True:
            batch = self._buffer.take(self._clock(), _BATCH_FACTS)
            if not batch:
                await self._wait_due()
                continue
            began = self._clock()
            self._in_flight = True
            await self._store(batch)
            self._in_flight = False
            async with self._landed:
                self._landed.notify_all()
            took_s = self._clock() - began
            await self._rest(len(batch), took_s)

    async def _rest(self, facts: int, took_s: float) -> None:
        """Leave the stream to the lanes for a while. A full batch is followed soon by the next."""
        pace_s = facts / self._facts_per_s - took_s
        full = facts >= _BATCH_FACTS
        rest_s = max(pace_s, min(took_s, _REST_S)) if full else _REST_S
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(rest_s):
                await self._hurried.wait()

    async def stored_so_far(self) -> None:
        """Wait until all facts that were added before are stored."""
        moment = self._clock() + self._buffer.linger_s
        async with self._landed:
            await self._landed.wait_for(lambda: not self._owes(moment))

    async def flush(self) -> None:
        """As `stored_so_far`, and nothing lingers any more: the process stops."""
        self._buffer.hurry()
        self._hurried.set()
        self._due.set()
        await self.stored_so_far()

    def _owes(self, moment: float) -> bool:
        due_at = self._buffer.due_at
        return self._in_flight or (due_at is not None and due_at <= moment)

    async def _wait_due(self) -> None:
        """Wait until a fact is due, or until one is added that may be due earlier."""
        self._due.clear()
        due_at = self._buffer.due_at
        delay_s = None if due_at is None else max(0.0, due_at - self._clock())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(delay_s):
                await self._due.wait()

    async def _store(self, batch: Sequence[Fact]) -> None:
        """Store a batch, however long it takes."""
        messages: list[Publication] = []
        for start in range(0, len(batch), _SLICE_FACTS):
            messages += map(message_of, batch[start : start + _SLICE_FACTS])
            await asyncio.sleep(0)
        failures, together = 0, len(messages) > 1
        while messages:
            client = await self._link.wait_up()
            if not await self._answers.listen(client):
                reason = "disconnected"
            elif together and server_version(client) >= ATOMIC_SINCE:
                answer = await self._send_together(client, messages)
                if answer.verdict in _STORED:
                    break
                if answer.verdict in _EACH:
                    together = False  # one of them is stored already, or the batch is too large
                    continue
                reason = answer.reason
            else:
                messages, reason = await self._send_each(client, messages)
            if messages:
                failures += 1
                await self._wait_before_repeat(len(messages), reason, failures)
        now = self._now()
        self._on_stored(len(batch), now - min(fact.time for fact in batch))

    async def _wait_before_repeat(self, facts: int, reason: str, failures: int) -> None:
        if failures in (1, 10) or failures % 100 == 0:
            _log.warning("presence_repeated", facts=facts, reason=reason, failures=failures)
        await asyncio.sleep(
            full_jitter_s(self._rng, failures, first_s=_RETRY_S, max_s=_RETRY_MAX_S)
        )

    async def _send_together(self, client: LinkClient, messages: list[Publication]) -> Answer:
        """Publish messages as one atomic batch: all of them are stored, or none."""
        token, reply = self._answers.expect(1)
        if not client.write(encode_atomic(messages, token, reply)):
            return pubacks.DISCONNECTED
        answers = await self._answers.gather(Kind.ATOMIC, len(messages))
        return answers.get(0, pubacks.TIMEOUT)

    async def _send_each(
        self, client: LinkClient, messages: list[Publication]
    ) -> tuple[list[Publication], str]:
        """Publish messages one by one, in order.

        Returns:
            Those that may not have been stored, and why.
        """
        _token, reply = self._answers.expect(len(messages))
        written = client.write(
            b"".join(
                encode_plain(message, b"%s.%d" % (reply, place))
                for place, message in enumerate(messages)
            )
        )
        answers = await self._answers.gather(Kind.ROUND, 1) if written else {}
        left, reason = [], ""
        for place, message in enumerate(messages):
            answer = answers.get(place, pubacks.TIMEOUT if written else pubacks.DISCONNECTED)
            if answer.verdict is Verdict.REFUSED:
                _log.error("presence_refused", subject=message.subject.decode(), why=answer.reason)
            elif answer.verdict not in _STORED:
                left.append(message)
                reason = reason or answer.reason
        return left, reason


class _Answers:
    """What JetStream answers to the batch in flight."""

    def __init__(self, inbox: str, name: str) -> None:
        """
        Args:
            inbox: prefix of the subjects of answers.
            name: prefix of the names of batches.
        """
        self._inbox = inbox
        self._batch = name
        self._client: LinkClient | None = None
        self._number = 0
        self._wanted = 0
        self._payloads: dict[int, bytes] = {}
        self._complete = asyncio.Event()

    async def listen(self, client: LinkClient) -> bool:
        """Hear answers on this connection; False if it is lost."""
        if client is self._client:
            return True
        try:
            await client.subscribe_raw(self._inbox + ">", self._on_reply)
            # `client.write` overtakes what nats-py has not sent yet.
            await client.flush(timeout=_FLUSH_S)
        except (nats.errors.Error, TimeoutError):
            return False
        self._client = client
        return True

    def expect(self, answers: int) -> tuple[bytes, bytes]:
        """A new batch begins. Returns its name, and where its answers go."""
        self._number += 1
        self._wanted = answers
        self._payloads = {}
        self._complete.clear()
        return f"{self._batch}-{self._number}".encode(), f"{self._inbox}{self._number}".encode()

    async def gather(self, kind: Kind, messages: int) -> dict[int, Answer]:
        """The answers that come in time, by the place of the message in its batch.

        Args:
            kind: how the batch was published.
            messages: how many one answer is for.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_ANSWER_S):
                await self._complete.wait()
        self._wanted = 0
        read = {
            place: pubacks.NO_RESPONDERS
            if payload is _NO_RESPONDERS
            else pubacks.read_answer(payload, kind=kind, stream=PRESENCE, messages=messages)
            for place, payload in self._payloads.items()
        }
        return {place: answer for place, answer in read.items() if answer is not None}

    def _on_reply(
        self, subject: bytes, _reply: bytes, payload: bytes, headers: bytes | None
    ) -> None:
        number, _, place = subject.decode()[len(self._inbox) :].partition(".")
        if number != str(self._number) or not self._wanted:
            return  # the answer came after its timeout; the repeat is answered too
        silent = headers is not None and headers.startswith(_NO_RESPONDERS)
        self._payloads[int(place or 0)] = _NO_RESPONDERS if silent else payload
        if len(self._payloads) >= self._wanted:
            self._complete.set()
