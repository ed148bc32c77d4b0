"""Requests to JetStream whose answers come back by number, without a coroutine for each."""

import asyncio
import itertools
from typing import Final

import msgspec
from msgspec import Struct

from gateway.consumers.errors import TargetAway
from gateway.stream.api_error import ApiError
from gateway.stream.link.client import Headers, LinkClient

ANSWER_S: Final = 5.0


class Answer(Struct):
    """A PubAck, of one message or of an atomic batch."""

    stream: str = ""
    seq: int = 0
    duplicate: bool = False
    count: int = 0
    error: ApiError | None = None


_decode = msgspec.json.Decoder(Answer).decode
_NO_RESPONDERS: Final = Answer(error=ApiError(0, "no stream answers there"))
_UNREADABLE: Final = Answer(error=ApiError(0, "the answer is no PubAck"))


class Answers:
    """Answers to publishes on one connection."""

    def __init__(self, client: LinkClient) -> None:
        self._client = client
        self._inbox = client.new_inbox()
        self._waiting: dict[str, asyncio.Future[Answer]] = {}
        self._numbers = itertools.count()

    async def open(self) -> None:
        """Subscribe, and return once the server knows of it."""
        await self._client.subscribe_direct(f"{self._inbox}.*", self._on_answer)
        await self._client.flush()

    def reply(self) -> tuple[bytes, asyncio.Future[Answer]]:
        """A subject for one answer, and where it comes."""
        number = str(next(self._numbers))
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting[number] = future
        return f"{self._inbox}.{number}".encode(), future

    def write(self, commands: bytes) -> None:
        """
        Raises:
            TargetAway: the connection is lost.
        """
        if not self._client.write(commands):
            raise TargetAway("the connection to NATS is lost")

    async def wait(self, futures: list[asyncio.Future[Answer]]) -> list[Answer]:
        """
        Raises:
            TargetAway: not all of them came in time: nobody knows what was stored.
        """
        answered = False
        try:
            async with asyncio.timeout(ANSWER_S):
                found = list(await asyncio.gather(*futures))
            answered = True
        except TimeoutError:
            raise TargetAway(f"no answer from the target's stream in {ANSWER_S:g} s") from None
        finally:
            if not answered:
                self.forget_cancelled()
        return found

    def forget_cancelled(self) -> None:
        """Nobody waits for these answers any more."""
        waiting = self._waiting.items()
        self._waiting = {number: future for number, future in waiting if not future.cancelled()}

    def _on_answer(self, subject: str, data: bytes, headers: Headers) -> None:
        future = self._waiting.pop(subject.rpartition(".")[2], None)
        if future is None or future.done():
            return
        if headers is not None and not data:
            future.set_result(_NO_RESPONDERS)
            return
        try:
            future.set_result(_decode(data))
        except msgspec.DecodeError:
            future.set_result(_UNREADABLE)
