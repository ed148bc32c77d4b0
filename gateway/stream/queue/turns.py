"""What is done about the queued commands of one session, one step at a time.

A `Line` is a session of a device that has commands. `Turns` takes its steps: an answer of the
device is turned into a fact, or the next command is given to it. At most one step of a line runs at
a time, and each step can fail half way: a repeat first reads what is stored (`facts.py` has the
rules). So the steps are safe against another node, against a kill between any two of them, and
against a write that was stored although nobody heard so.

A command is given to an application at most once:
- Without receipts, a command that was SENT to another session is UNKNOWN: that session may have
  passed it on.
- With receipts, the device keeps the ids on its disk, so the same command may be sent again.
"""

from collections.abc import Callable
from typing import Final

from msgspec import UNSET

from gateway.stream.errors import EntryError, FactConflict
from gateway.stream.queue.facts import (
    CONNECTION_LOST,
    DATA_BYTES_MAX,
    DATA_TOO_LARGE,
    FINAL,
    NO_RESULT,
    NOT_SENT,
    DeviceKey,
    Entry,
    Fact,
    Stored,
    outcome_of,
    rfc3339,
)
from gateway.stream.queue.index import QueueIndex, Waiting
from gateway.stream.queue.line import InFlight, Line, QueueLimits, QueueObserver, Store
from gateway.stream.queue.status import NOT_UNDERSTOOD, Status
from tidegate.wire import frames

_ATTEMPTS: Final = 4
"""Times a step reads again what another writer has changed, before it waits for its next turn."""


class Turns:
    """Takes the steps of lines."""

    def __init__(
        self,
        store: Store,
        index: QueueIndex,
        limits: QueueLimits,
        *,
        node: str,
        wall: Callable[[], float],
        observer: QueueObserver,
    ) -> None:
        """
        Args:
            store: the stream.
            index: the entries.
            limits: bounds.
            node: the name of this process.
            wall: Unix time.
            observer: hooks.
        """
        self._store = store
        self._index = index
        self._limits = limits
        self._node = node
        self._wall = wall
        self._observer = observer

    # An answer of the device

    async def answer(self, line: Line) -> None:
        """Store what the first answer of the device means."""
        answer = line.answers[0]
        if isinstance(answer, frames.Received):
            await self._received(line, answer.id)
        else:
            await self._result(line, answer)
        line.answers.popleft()

    async def _received(self, line: Line, command_id: str) -> None:
        given = line.given.get(command_id)
        if given is None:
            self._observer.ignored("receipt")
            return
        line.received()
        if given.status is not Status.SENT:
            return
        fact = self._fact(line, Status.DELIVERED, given.entry)
        try:
            given.seq = await self._write(line.key, command_id, fact, given.seq)
        except FactConflict:
            await self._look_at_given(line, command_id, given)
        else:
            given.status = Status.DELIVERED

    async def _look_at_given(self, line: Line, command_id: str, given: InFlight) -> Stored | None:
        """Somebody else has stored a fact of a command that this session was given."""
        stored = await self._store.last(line.key, command_id)
        if stored is None or stored.fact.status in FINAL:
            line.given.pop(command_id, None)
            await self._forget(line.key, given.entry)
        else:
            given.seq, given.status = stored.seq, stored.fact.status
        return stored

    async def _result(self, line: Line, result: frames.Result) -> None:
        given = line.given.get(result.id)
        if given is None:
            if not line.receipts:
                self._observer.ignored("result")
                return
            stored = await self._store.last(line.key, result.id)
        else:
            stored = Stored(given.seq, self._fact(line, given.status, given.entry))
        status, reason = outcome_of(result)
        for _attempt in range(_ATTEMPTS):
            if stored is None or stored.fact.status in FINAL:
                break
            if stored.fact.status is Status.QUEUED:
                self._observer.ignored("result")  # nobody was given this command
                return
            fact = self._fact(line, status, stored.fact.entry, reason)
            if result.data is not UNSET and len(result.data) <= DATA_BYTES_MAX:
                fact.data = result.data
            elif result.data is not UNSET:
                fact.reason = fact.reason or DATA_TOO_LARGE
            try:
                await self._write(line.key, result.id, fact, stored.seq)
                break
            except FactConflict:
                stored = await self._store.last(line.key, result.id)
        else:
            raise FactConflict
        line.given.pop(result.id, None)
        await self._forget(line.key, stored.fact.entry if stored is not None else 0)
        if line.receipts:
            line.seat.settled(result.id)

    # The next command

    def next(self, line: Line) -> Waiting | None:
        """The command that this session may be given now."""
        if not line.alive or len(line.given) >= self._limits.in_flight_max:
            return None
        return self._index.next(line.key, line.given)

    async def give(self, line: Line) -> None:
        """Give the session its next command, or settle that command otherwise."""
        waiting = self.next(line)
        if waiting is None or not line.seat.takes_commands:
            return
        try:
            entry = await self._store.entry(waiting.seq)
        except EntryError as exc:
            await self.discard(line.key, waiting.seq, exc.id)
            return
        if entry is None:
            self._index.remove(line.key, waiting.seq)
            return
        stored = await self._store.last(line.key, entry.id)
        status = None if stored is None else stored.fact.status
        if status in (None, Status.QUEUED):
            await self._send_first(line, waiting, entry, stored)
        elif status in FINAL:
            await self._forget(line.key, waiting.seq)
        else:
            assert stored is not None
            await self._go_on(line, waiting, entry, stored)

    async def _send_first(
        self, line: Line, waiting: Waiting, entry: Entry, stored: Stored | None
    ) -> None:
        """A command that nobody was given."""
        after = 0 if stored is None else stored.seq
        if entry.expires_at <= self._wall():
            await self._end(line.key, waiting, Fact(Status.EXPIRED, self._now()), after)
            return
        fact = self._fact(line, Status.SENT, waiting.seq)
        given = InFlight(waiting.seq, 0, Status.SENT)
        try:
            given.seq = await self._write(line.key, entry.id, fact, after)
        except FactConflict:
            return  # the next turn reads what is stored now
        await self._send(line, entry, given)

    async def _go_on(self, line: Line, waiting: Waiting, entry: Entry, stored: Stored) -> None:
        """A command that a session was given before, perhaps this one."""
        fact = stored.fact
        given = InFlight(waiting.seq, stored.seq, fact.status)
        if fact.status is Status.SENT and self._mine(line, fact):
            # It was stored although no answer said so: the frame never went out.
            if entry.expires_at <= self._wall():
                await self._end(line.key, waiting, Fact(Status.EXPIRED, self._now()), stored.seq)
            else:
                await self._send(line, entry, given)
        elif not (fact.receipts and line.receipts):
            await self._end(line.key, waiting, self._unknown(fact, CONNECTION_LOST), stored.seq)
        elif fact.status is Status.DELIVERED:
            line.given[entry.id] = given  # the device has it, and will say how it ended
        elif entry.expires_at <= self._wall():
            await self._end(line.key, waiting, self._unknown(fact, CONNECTION_LOST), stored.seq)
        else:
            await self._send(line, entry, given)

    def _mine(self, line: Line, fact: Fact) -> bool:
        return (fact.node, fact.fence) == (self._node, line.fence)

    async def _send(self, line: Line, entry: Entry, given: InFlight) -> None:
        ttl_ms = max(0, int((entry.expires_at - self._wall()) * 1000))
        command = frames.Command(
            entry.id, entry.type, entry.data, queued=True, trace=entry.trace, ttl_ms=ttl_ms
        )
        line.given[entry.id] = given  # before the frame: the answer may come in the same turn
        if line.alive and line.seat.command(command):
            return
        del line.given[entry.id]
        if not line.receipts:
            # Nobody was given the command. Say so, or the next session would call it unknown.
            back = Fact(Status.QUEUED, self._now(), self._node, reason=NOT_SENT)
            await self._write(line.key, entry.id, back, given.seq)

    # The end of a session, and of an entry

    async def lost(self, line: Line) -> None:
        """A session without receipts has ended: nobody knows what became of its commands."""
        for command_id, given in list(line.given.items()):
            fact = self._unknown(self._fact(line, given.status, given.entry), CONNECTION_LOST)
            waiting = Waiting(given.entry, command_id, 0.0)
            await self._end(line.key, waiting, fact, given.seq)
            del line.given[command_id]

    async def settle(self, key: DeviceKey, waiting: Waiting) -> float | None:
        """The time of an entry has passed, and no session here deals with it.

        Returns:
            When to look at it again; None if it is gone.
        """
        try:
            entry = await self._store.entry(waiting.seq)
        except EntryError as exc:
            await self.discard(key, waiting.seq, exc.id)
            return None
        if entry is None:
            self._index.remove(key, waiting.seq)
            return None
        now = self._wall()
        if entry.expires_at > now:
            return entry.expires_at  # the clock was set back
        stored = await self._store.last(key, waiting.id)
        if stored is None or stored.fact.status is Status.QUEUED:
            after = 0 if stored is None else stored.seq
            await self._end(key, waiting, Fact(Status.EXPIRED, self._now()), after)
        elif stored.fact.status in FINAL:
            await self._forget(key, waiting.seq)
        elif now < (patience_ends := entry.expires_at + self._limits.result_wait_s):
            return patience_ends
        else:
            await self._end(key, waiting, self._unknown(stored.fact, NO_RESULT), stored.seq)
        return now if self._index.find(key, waiting.seq) is not None else None

    async def discard(self, key: DeviceKey, seq: int, command_id: str) -> None:
        """Settle an entry that no device can be given."""
        self._observer.ignored("entry")
        if command_id:
            stored = await self._store.last(key, command_id)
            status = None if stored is None else stored.fact.status
            if status in (None, Status.QUEUED):
                fact = Fact(Status.FAILED, self._now(), self._node, reason=NOT_UNDERSTOOD)
                after = 0 if stored is None else stored.seq
                await self._end(key, Waiting(seq, command_id, 0.0), fact, after)
                return
        await self._forget(key, seq)

    async def _end(self, key: DeviceKey, waiting: Waiting, fact: Fact, after: int) -> None:
        """Store a final fact and delete the entry. Another writer may be first: then it stays."""
        fact.node = self._node
        try:
            await self._write(key, waiting.id, fact, after)
        except FactConflict:
            return
        await self._forget(key, waiting.seq)

    async def _forget(self, key: DeviceKey, seq: int) -> None:
        if seq:
            await self._store.delete(seq)
            self._index.remove(key, seq)

    async def _write(self, key: DeviceKey, command_id: str, fact: Fact, after: int) -> int:
        seq = await self._store.write(key, command_id, fact, after)
        self._observer.stored(fact.status)
        return seq

    def _fact(self, line: Line, status: Status, entry: int, reason: str = "") -> Fact:
        return Fact(status, self._now(), self._node, line.fence, line.receipts, entry, reason)

    def _unknown(self, fact: Fact, reason: str) -> Fact:
        return Fact(
            Status.UNKNOWN, self._now(), fact.node, fact.fence, fact.receipts, fact.entry, reason
        )

    def _now(self) -> str:
        return rfc3339(self._wall())
