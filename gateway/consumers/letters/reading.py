"""Reads dead letters, and which of them have been sent again."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Final

import msgspec
import nats.errors
from msgspec import UNSET, Struct, UnsetType

from gateway.consumers.stored_now import stored_now
from gateway.events.dead_letters import Letter, Selection, letter_of
from gateway.events.redrives import REDRIVES, seq_of_fact
from gateway.stream.errors import StreamMissing
from gateway.stream.link.client import LinkClient
from gateway.stream.names import DEADLETTERS
from gateway.stream.reading.reader import Link

_FACTS_AT_ONCE: Final = 64
_TIMEOUT_S: Final = 5.0


class _Got(Struct):
    message: msgspec.Raw | UnsetType = UNSET


def fact_subject(seq: int) -> str:
    """Where it is written that the letter with this sequence was sent again."""
    return f"redriven.{seq}"


async def letters_in(
    link: Link, selection: Selection, *, after: int = 0, few: bool = False
) -> AsyncIterator[Letter]:
    """The letters of a selection that are stored now, in stream order.

    Args:
        link: the connection.
        selection: which ones.
        after: the sequence behind which to begin.
        few: whether the caller stops early, so that not much should be asked for.

    Raises:
        StreamMissing: there is no stream of letters.
    """
    room = 100 if few else 2_000
    found = stored_now(
        link, DEADLETTERS, selection.subjects, letter_of, after=after, room_messages=room
    )
    async with contextlib.aclosing(found):
        async for letter in found:
            if selection.includes(letter):
                yield letter


async def redriven_seqs(link: Link) -> set[int]:
    """Sequences of all letters that were sent again."""
    found: set[int] = set()
    with contextlib.suppress(StreamMissing):
        async for seq in stored_now(link, REDRIVES, ["redriven.*"], seq_of_fact):
            found.add(seq)
    return found


async def redriven_among(client: LinkClient, letters: Sequence[Letter]) -> set[int]:
    """Of a page of letters, the sequences of those that were sent again."""
    gate = asyncio.Semaphore(_FACTS_AT_ONCE)

    async def known(seq: int) -> bool:
        wanted = msgspec.json.encode({"last_by_subj": fact_subject(seq)})
        async with gate:
            try:
                answer = await client.request(
                    f"$JS.API.STREAM.MSG.GET.{REDRIVES}", wanted, timeout=_TIMEOUT_S
                )
            except nats.errors.NoRespondersError:
                return False  # no such stream: nothing was ever sent again
        return msgspec.json.decode(answer.data, type=_Got).message is not UNSET

    answers = await asyncio.gather(*(known(letter.seq) for letter in letters))
    return {letter.seq for letter, sent in zip(letters, answers, strict=True) if sent}
