"""Stores the messages of one rule in batches of its own, or one by one.

Most messages share batches with those of other rules (`batch_writer.py`). This is the way for what
the stream has refused as a part of such a batch, and for streams without atomic batches. It finds
out which message is never stored. Elsewhere than in a batch, at most one message of a device is
under way, so the order per device holds.
"""

import asyncio
import secrets
from collections import deque
from collections.abc import Callable, Iterator, Sequence

from gateway.consumers.delivery.answers import Answer, Answers
from gateway.consumers.delivery.derived import Derived, encode_commit, encode_single, encode_staged
from gateway.consumers.delivery.holding import Holder
from gateway.consumers.delivery.refusals import BATCH_TOO_LARGE, NEVER, ONE_BY_ONE
from gateway.consumers.errors import TargetAway
from gateway.consumers.target import Rejected
from gateway.stream.api_error import ApiError


class OwnBatches:
    """The way of one rule into one stream."""

    def __init__(
        self,
        answers: Answers,
        holder: Holder,
        guard: Callable[[], None],
        gate: asyncio.Semaphore,
    ) -> None:
        """
        Args:
            answers: of the connection.
            holder: the stream.
            guard: raises NotOwner if this process must not write any more.
            gate: bounds how many rules store on their own at once.
        """
        self._answers = answers
        self._stream = holder.stream.encode()
        self._atomic = holder.atomic
        self._guard = guard
        self._gate = gate
        self.refusals = 0
        """How often the stream has refused something."""

    async def store(self, chunks: Iterator[Sequence[Derived]], rejected: list[Rejected]) -> int:
        """Store chunks one after the other; the stream's last sequence of them then.

        While a batch is committed, the next one is sent but for its last message. If the batch
        fails, the one behind it is never committed: it would come first.

        Args:
            chunks: each small enough for a batch.
            rejected: takes what is never stored.

        Raises:
            TargetAway: nobody knows what is stored.
            NotOwner: this process must not write any more.
        """
        async with self._gate:
            return await self._store(chunks, rejected)

    async def _store(self, chunks: Iterator[Sequence[Derived]], rejected: list[Rejected]) -> int:
        stored = 0
        chunk, batch_id = next(chunks, None), b""
        while chunk:
            self._guard()
            if not self._atomic or len(chunk) == 1:
                stored = max(stored, await self._store_in_rounds(chunk, rejected))
                chunk, batch_id = next(chunks, None), b""
                continue
            future = self._commit(chunk, batch_id or self._stage(chunk))
            following = next(chunks, None)
            batch_id = self._stage(following) if following and len(following) > 1 else b""
            (answer,) = await self._answers.wait([future])
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
        self._answers.write(encode_staged(chunk[:-1], batch_id, 1))
        return batch_id

    def _commit(self, chunk: Sequence[Derived], batch_id: bytes) -> asyncio.Future[Answer]:
        reply, future = self._answers.reply()
        self._answers.write(encode_commit(chunk[-1], batch_id, len(chunk), reply, self._stream))
        return future

    async def _store_otherwise(
        self, chunk: Sequence[Derived], error: ApiError, rejected: list[Rejected]
    ) -> int:
        """Store a batch that the stream refused as a whole, of which nothing is stored."""
        self.refusals += 1
        if error.err_code == BATCH_TOO_LARGE:
            half = len(chunk) // 2
            return await self._store(iter([chunk[:half], chunk[half:]]), rejected)
        if error.err_code not in ONE_BY_ONE:
            raise TargetAway(f"the target's stream says: {error.description}")
        return await self._store_in_rounds(chunk, rejected)

    async def _store_in_rounds(self, chunk: Sequence[Derived], rejected: list[Rejected]) -> int:
        """Store them with at most one message of a device under way."""
        answers, stored = self._answers, 0
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
                    encode_single(message, reply, self._stream)
                    for message, (reply, _) in zip(sent, replies, strict=True)
                )
            )
            for message, answer in zip(
                sent, await answers.wait([future for _, future in replies]), strict=True
            ):
                stored = max(stored, self._settled(message, answer, rejected))
        return stored

    def _settled(self, message: Derived, answer: Answer, rejected: list[Rejected]) -> int:
        """The sequence at which a message is stored, 0 if it never can be.

        Raises:
            TargetAway: it is not stored now.
        """
        if answer.error is None:
            return answer.seq
        error = NEVER.get(answer.error.err_code)
        if error is None:
            raise TargetAway(f"the target's stream says: {answer.error.description}")
        self.refusals += 1
        rejected.append(Rejected(message.event, error, answer.error.description))
        return 0
