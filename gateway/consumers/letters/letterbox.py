"""Stores dead letters in DEADLETTERS, each exactly once."""

import asyncio
from collections.abc import Sequence
from typing import Final

import nats.errors

from gateway.consumers.errors import TargetAway
from gateway.consumers.target import Rejected
from gateway.consumers.target_scan import delivered_behind
from gateway.events.event import Event
from gateway.events.letters import Stage, letter_headers, letter_id, letter_subject
from gateway.stream.errors import StreamMissing
from gateway.stream.link.client import LinkClient
from gateway.stream.names import DEADLETTERS
from gateway.stream.reading.reader import Link

_AT_ONCE: Final = 128
_TIMEOUT_S: Final = 5.0


class Letterbox:
    """The letters of one consumer."""

    def __init__(self, link: Link, stage: Stage, name: str) -> None:
        self._link = link
        self._stage: Stage = stage
        self._name = name

    async def store(self, rejected: Sequence[Rejected], *, in_doubt: bool) -> None:
        """Store a letter for each, in order of each device.

        Args:
            rejected: in stream order.
            in_doubt: whether some may be stored already, longer ago than JetStream remembers ids:
                they are looked up first, one by one. The last letter does not tell: what an HTTP
                receiver refused before may be accepted now, and the reverse.

        Raises:
            TargetAway: not all of them were acknowledged.
        """
        client = self._link.client
        if client is None:
            raise TargetAway("NATS is away, and a dead letter must be stored first")
        by_device: dict[str, list[Rejected]] = {}
        for each in rejected:
            subject = letter_subject(each.event, self._stage, self._name)
            by_device.setdefault(subject, []).append(each)
        gate = asyncio.Semaphore(_AT_ONCE)
        try:
            async with asyncio.TaskGroup() as group:
                for subject, letters in by_device.items():
                    group.create_task(self._of_device(client, gate, subject, letters, in_doubt))
        except* (StreamMissing, nats.errors.Error, TimeoutError) as failures:
            first = failures.exceptions[0]
            raise TargetAway(f"a dead letter was not stored: {first}") from None

    async def _of_device(
        self,
        client: LinkClient,
        gate: asyncio.Semaphore,
        subject: str,
        letters: Sequence[Rejected],
        in_doubt: bool,
    ) -> None:
        jetstream = client.jetstream(timeout=_TIMEOUT_S)
        async with gate:
            known = await self._known(subject, letters[0].event) if in_doubt else set()
            for each in letters:
                if each.event.position_seq in known:
                    continue
                headers = letter_headers(
                    each.event, self._stage, self._name, each.error, each.detail
                )
                await jetstream.publish(
                    subject, each.event.data, stream=DEADLETTERS, headers=dict(headers)
                )

    async def _known(self, subject: str, like: Event) -> set[int]:
        """The sequences of the events whose letters are there, in the stream which `like` is of."""
        _, _, middle, _ = letter_id(like, self._stage, self._name).split(":")
        middle = f":{middle}:"
        return await delivered_behind(self._link, DEADLETTERS, [subject], middle, mark=0)
