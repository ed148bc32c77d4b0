"""What an operator does with commands: requests, entries of the queue, cancels, and their facts."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final

import nats.errors

from gateway.stream.errors import EntryError, FactConflict, NotAnswered
from gateway.stream.header_block import TRACE_HEADER
from gateway.stream.lanes.encoding import Publication, publication
from gateway.stream.link.client import LinkClient
from gateway.stream.names import COMMANDS
from gateway.stream.queue.facts import (
    CANCELLED,
    FINAL,
    DeviceKey,
    Entry,
    Fact,
    queue_subject,
    read_entry,
    read_fact,
    rfc3339,
    status_subject,
)
from gateway.stream.queue.requests import (
    NOT_THERE,
    Outcome,
    read_outcome,
    request_body,
    request_subject,
    silence,
)
from gateway.stream.queue.status import Status
from gateway.stream.queue.store import CommandStore

_FULL: Final = 10077
_LOOK_S: Final = 0.2
_NAME: Final = "operator"


async def request(
    client: LinkClient,
    key: DeviceKey,
    message_type: str,
    data: bytes,
    wait_s: float,
    trace: str = "",
) -> Outcome:
    """Ask a device that is connected now, and wait for its answer.

    Args:
        client: the connection.
        key: tenant and device.
        message_type: of the command.
        data: of the command, JSON.
        wait_s: how long the device has.
        trace: `traceparent` of the asker, or nothing.

    Raises:
        nats.errors.Error: the connection is lost.
        NotAnswered: the answer is not that of a gateway.
    """
    body = request_body(message_type, data)
    try:
        answer = await client.request(
            request_subject(key),
            body,
            timeout=wait_s,
            headers={TRACE_HEADER.decode(): trace} if trace else None,
        )
    except nats.errors.NoRespondersError:
        return NOT_THERE
    except TimeoutError:
        return silence(wait_s)
    return read_outcome(answer.data)


@dataclass(frozen=True, slots=True)
class Command:
    """An entry of the queue, and its last status."""

    entry: Entry
    status: Status


def _entry_message(key: DeviceKey, entry: Entry) -> Publication:
    lines = f"Nats-Msg-Id:{key[0]}:{key[1]}:{entry.id}\r\n"
    if entry.trace:
        lines += f"{TRACE_HEADER.decode()}:{entry.trace}\r\n"
    return publication(COMMANDS, queue_subject(key).encode(), lines.encode(), entry.payload)


class CommandQueue(CommandStore):
    """The queue as operators use it."""

    def __init__(self) -> None:
        super().__init__(_NAME)

    async def put(self, key: DeviceKey, entry: Entry) -> None:
        """Store a command. It waits for its device from now on.

        Raises:
            NotAnswered: it is refused; says why.
            StoreAway: whether it is stored is not known. The same entry may be put again.
        """
        try:
            read_entry(entry.payload)
        except EntryError as exc:
            raise NotAnswered(str(exc)) from None
        first = Fact(Status.QUEUED, rfc3339(time.time()))
        both = [_entry_message(key, entry), self._message_of(key, entry.id, first, 0)]
        if await self.append_all(both):
            return
        # Refused, or the server has no batches: each on its own says why.
        answer = await self._publish(both[0])
        if answer.error is not None:
            if answer.error.err_code == _FULL:
                raise NotAnswered("as many commands as allowed wait for this device already")
            raise NotAnswered(answer.error.description)
        with contextlib.suppress(FactConflict):  # its device has been given it already
            await self.write(key, entry.id, first, 0)

    async def cancel(self, key: DeviceKey, command_id: str) -> Status | None:
        """Settle a command that nobody was given as `failed`, `cancelled`.

        Returns:
            The status that keeps it from being cancelled, or None if it is cancelled.

        Raises:
            NotAnswered: there is no such command.
            StoreAway: whether it is cancelled is not known.
        """
        while True:
            stored = await self.last(key, command_id)
            if stored is None:
                if not any([each.id == command_id async for each, _seq in self._entries(key)]):
                    raise NotAnswered(f"no command {command_id} is known for this device")
            elif stored.fact.status is not Status.QUEUED:
                return stored.fact.status
            fact = Fact(Status.FAILED, rfc3339(time.time()), reason=CANCELLED)
            try:
                await self.write(key, command_id, fact, 0 if stored is None else stored.seq)
            except FactConflict:
                continue
            return None

    async def facts(
        self, key: DeviceKey, command_id: str, wait_s: float = 0.0
    ) -> AsyncIterator[Fact]:
        """The facts of a command, in order, until the final one, or until `wait_s` has passed.

        Raises:
            StoreAway: the stream does not answer.
        """
        subject, seq = status_subject(key, command_id), 1
        give_up_at = time.monotonic() + wait_s
        while True:
            message = await self._look({"seq": seq, "next_by_subj": subject})
            if message is not None:
                fact = read_fact(message.data)
                yield fact
                if fact.status in FINAL:
                    return
                seq = message.seq + 1
            elif time.monotonic() >= give_up_at:
                return
            else:
                await asyncio.sleep(_LOOK_S)

    async def waiting(self, key: DeviceKey) -> AsyncIterator[Command]:
        """The commands that wait for a device, in order.

        Raises:
            StoreAway: the stream does not answer.
        """
        async for entry, _seq in self._entries(key):
            stored = await self.last(key, entry.id)
            yield Command(entry, Status.QUEUED if stored is None else stored.fact.status)

    async def _entries(self, key: DeviceKey) -> AsyncIterator[tuple[Entry, int]]:
        seq = 1
        while True:
            message = await self._look({"seq": seq, "next_by_subj": queue_subject(key)})
            if message is None:
                return
            seq = message.seq + 1
            try:
                yield read_entry(message.data), message.seq
            except EntryError:
                continue  # a gateway settles it
