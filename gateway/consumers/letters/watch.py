"""Follows DEADLETTERS and the facts of redrives, for the gauges of what waits for an operator.

Each process of sinks or rules does it, and all of them show the same figures: the streams are the
truth, and no process owns them. Only headers are read.
"""

import asyncio
import random
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, Final

import nats.errors
import structlog

from gateway import tasks
from gateway.events.dead_letters import Letter, letter_of
from gateway.events.letter_tally import LetterTally, Waiting
from gateway.events.redrives import REDRIVES, seq_of_fact
from gateway.stream.errors import StreamMissing
from gateway.stream.link.client import LinkClient
from gateway.stream.names import DEADLETTERS
from gateway.stream.provisioning.inspection import StreamFacts, stream_facts
from gateway.stream.reading.reader import Link, Make, StartAt, StreamReader

_log = structlog.get_logger(__name__)

_POLL_S: Final = 5.0
_LINGER_S: Final = 0.2
_ROOM_MESSAGES: Final = 2_000
_ROOM_BYTES: Final = 4 << 20
_NS: Final = 1_000_000_000


class LetterWatch:
    """What waits in DEADLETTERS."""

    def __init__(self, link: Link, rng: random.Random, wall_clock: Callable[[], float]) -> None:
        """
        Args:
            link: the connection to NATS.
            rng: source of jitter.
            wall_clock: Unix seconds.
        """
        self._link = link
        self._rng = rng
        self._wall_clock = wall_clock
        self._shown: LetterTally | None = None

    def waiting(self) -> list[Waiting]:
        """Letters that were not sent again, by kind; empty until all of them have been read."""
        return self._shown.waiting() if self._shown is not None else []

    def oldest_age_s(self) -> float | None:
        """Age of the oldest of them, 0 if there is none; None until all have been read."""
        if self._shown is None:
            return None
        oldest_ns = self._shown.oldest_ns()
        return 0.0 if oldest_ns is None else max(0.0, self._wall_clock() - oldest_ns / _NS)

    def work(self) -> Iterator[tuple[str, Coroutine[Any, Any, None]]]:
        yield "letter-watch", self.run()

    async def run(self) -> None:
        """Follow the streams until cancelled; from their beginning again if one was made anew."""
        while True:
            letters = await self._facts_of(DEADLETTERS)
            if letters is not None:
                await self._follow(letters.created)
                self._shown = None
            await self._pause()

    async def _pause(self) -> None:
        await asyncio.sleep(self._rng.uniform(_POLL_S / 2, _POLL_S))

    async def _facts_of(self, stream: str) -> StreamFacts | None:
        """None if there is no such stream, or if it does not answer."""
        try:
            return await stream_facts(await self._link.wait_up(), stream)
        except StreamMissing:
            return None
        except (nats.errors.Error, TimeoutError) as exc:
            _log.debug("letters_unknown", stream=stream, error=str(exc))
            return None

    async def _follow(self, created: str) -> None:
        """Count until a stream is another one."""
        tally = LetterTally()

        def count(letter: Letter) -> None:
            tally.letter(letter.seq, letter.stage, letter.error, letter.stored_at_ns)

        readers = [self._reader(DEADLETTERS, "deadletters.>", letter_of)]
        running = _reading(readers[0], count)
        redrives = ""
        try:
            while not any(task.done() for task in running):
                letters, sent = await self._facts_of(DEADLETTERS), await self._facts_of(REDRIVES)
                if letters is not None:
                    if letters.created != created:
                        return
                    tally.expired(letters.first_seq)
                if sent is not None and not redrives:
                    redrives = sent.created
                    readers.append(self._reader(REDRIVES, "redriven.*", seq_of_fact))
                    running += _reading(readers[-1], tally.sent_again)
                elif sent is not None and sent.created != redrives:
                    return
                await self._pause_until_read(readers)
                if all(map(_at_end, readers)):
                    self._shown = tally
            for task in running:
                if task.done():
                    task.result()
        finally:
            await tasks.end(*running)

    async def _pause_until_read(self, readers: list[StreamReader[Any]]) -> None:
        """A pause, which is short while letters are still read for the first time."""
        if self._shown is not None:
            await self._pause()
            return
        for _ in range(int(_POLL_S / _LINGER_S)):
            await asyncio.sleep(_LINGER_S)
            if all(map(_at_end, readers)):
                return

    def _reader(self, stream: str, subject: str, make: Make[Any]) -> StreamReader[Any]:
        return StreamReader(
            self._link,
            stream,
            [subject],
            start=_start,
            make=make,
            room_messages=_ROOM_MESSAGES,
            room_bytes=_ROOM_BYTES,
            rng=self._rng,
            headers_only=True,
        )


async def _start(_client: LinkClient, accepted: int) -> StartAt:
    return StartAt(accepted + 1)


def _at_end(reader: StreamReader[Any]) -> bool:
    return reader.begun.is_set() and not reader.pending and not len(reader)


def _reading(reader: StreamReader[Any], take: Callable[[Any], None]) -> list[asyncio.Task[None]]:
    async def feed() -> None:
        while True:
            for item in await reader.gather(_ROOM_MESSAGES, _ROOM_BYTES, _LINGER_S):
                take(item)

    return [
        asyncio.create_task(reader.run(), name="letter-watch-read"),
        asyncio.create_task(feed(), name="letter-watch-count"),
    ]
