"""The commands of one device between its sessions, its disk and its application.

A command of the queue is on the disk before the gateway hears `received`, and recorded as handed
over before the application gets it (`command_log.py`). If its time has passed before that, it is
answered `expired`, and the application does not get it. Its result is sent after each `welcome`
until the gateway settles it. Any other command is a request: somebody waits for its answer now, so
it lives in memory only.
"""

import asyncio
import json
import logging
import math
from collections import deque
from dataclasses import dataclass
from typing import Final

import msgspec
from msgspec import UNSET

from tidegate.board import Board
from tidegate.clock import Clock
from tidegate.command_log import TTL_MS_MAX, Arrival, Outcome, Receipt
from tidegate.errors import OutboxError, Rejected
from tidegate.exchange import Command
from tidegate.outbox_thread import OutboxThread
from tidegate.outgoing import Outgoing
from tidegate.wire import frames

_log = logging.getLogger("tidegate.device")

COMMANDS_MAX: Final = 1_000
"""So many commands, and so many of the queue, wait for the application or to be settled."""
OPEN_BYTES_MAX: Final = 16_777_216
"""So many bytes of data and results have the commands of the queue that are not settled."""
_ANSWERS_MAX: Final = 1_000
_COMMAND_ID_CHARS_MAX: Final = 64
_REPEAT_S: Final = 60.0
"""After what time a session sends again the results that are not settled."""
_RETRY_S: Final = 1.0
"""After what time a refusal of the disk is tried again."""


@dataclass(slots=True)
class _Open:
    """A command of the queue that is not settled."""

    size: int
    """Bytes of its data or its result."""
    given: bool = False
    """Whether it was handed to the application and not answered."""
    result: bytes | None = None
    """The frame of its result."""


class Mailbox:
    """Commands that wait for the application, and frames that wait for a session."""

    def __init__(self, store: OutboxThread, board: Board, clock: Clock) -> None:
        """
        Args:
            store: has the commands that an earlier process left.
            board: hears of each change.
            clock: of the pace of receipts and results.
        """
        self.commands: deque[Command] = deque()
        """Those that wait for the application."""
        self._answers: deque[bytes] = deque(maxlen=_ANSWERS_MAX)
        self._store = store
        self._board = board
        self._clock = clock
        self._outgoing = Outgoing(clock.monotonic())
        self._open: dict[str, _Open] = {}
        self._arrivals: deque[tuple[int, Arrival]] = deque()
        """With each the session that it came in."""
        self._settled: deque[str] = deque()
        self._news = asyncio.Event()
        self._repeat_at = math.inf
        for kept in store.outbox.commands.kept:
            self._open[kept.id] = _Open(len(kept.data))
            if kept.outcome is None:
                self._offer(Arrival(kept.id, kept.type, kept.data))
            else:
                self._conclude(kept.id, kept.outcome)

    # The session

    def on_welcome(self, settles_results: bool) -> None:
        """A session has begun. The results that are not settled are sent again.

        Args:
            settles_results: whether its gateway names `receipts`.
        """
        self._outgoing.begin(settles_results)
        if settles_results:
            self._repeat_at = self._clock.monotonic() + _REPEAT_S
            self._outgoing.put(*self._results())

    def _results(self) -> list[bytes]:
        return [held.result for held in self._open.values() if held.result is not None]

    def take_command(self, command: frames.Command) -> None:
        """Take a command of the gateway."""
        if not command.queued:
            self._take_request(command)
            return
        expires_ms = None
        if command.ttl_ms is not UNSET:
            expires_ms = self._store.outbox.now_ms + min(command.ttl_ms, TTL_MS_MAX)
        arrival = Arrival(command.id, command.type, bytes(command.data), expires_ms, command.trace)
        session = self._outgoing.session
        if not 1 <= len(command.id) <= _COMMAND_ID_CHARS_MAX:
            _log.warning("a command was not taken: its id has %d characters", len(command.id))
        elif command.id in self._open:
            self._acknowledge(session, command.id)
        elif not self._has_room(len(arrival.data)):
            # Without a receipt the gateway keeps it, and sends it again in a later session.
            _log.warning("a command was not taken: too many are not settled")
        else:
            self._arrivals.append((session, arrival))
            self._news.set()

    def _take_request(self, command: frames.Command) -> None:
        problem = ""
        try:
            data = json.loads(bytes(command.data))
        except (ValueError, RecursionError) as exc:
            problem = f"data cannot be read: {exc}"
        else:
            if len(self.commands) < COMMANDS_MAX:
                self.commands.append(Command(command.id, command.type, data, trace=command.trace))
                return
            problem = f"{COMMANDS_MAX} commands wait already"
        _log.warning("a command was not handed over: %s", problem)
        self._answers.append(_result(command.id, _unusable(problem)))

    def _has_room(self, size: int) -> bool:
        """Whether a command of so many bytes can be taken. The oldest results give way to it: a
        gateway that does not settle them must not make the device deaf.
        """
        count = len(self._open) + len(self._arrivals)
        size += sum(len(arrival.data) for _session, arrival in self._arrivals)
        size += sum(held.size for held in self._open.values())
        for identity in [each for each, held in self._open.items() if held.result is not None]:
            if count < COMMANDS_MAX and size <= OPEN_BYTES_MAX:
                break
            count, size = count - 1, size - self._open[identity].size
            _log.warning("the result of %s was never settled; it is given up", identity)
            self.settled(identity)
        return count < COMMANDS_MAX and size <= OPEN_BYTES_MAX

    def settled(self, identity: str) -> None:
        """The gateway has stored the result of a command."""
        held = self._open.get(identity)
        if held is None or held.result is None:
            _log.debug("%.64r was settled, but no result of it waits", identity)
            return
        del self._open[identity]
        self._settled.append(identity)
        self._news.set()

    def take_frames(self) -> list[bytes]:
        """Take what may be sent now: answers of requests, receipts and results."""
        now = self._clock.monotonic()
        if now >= self._repeat_at:
            # A gateway that could not store a result in time may have dropped it.
            self._repeat_at = now + _REPEAT_S
            self._outgoing.repeat(self._results())
        answers = list(self._answers)
        self._answers.clear()
        return answers + self._outgoing.take(now)

    # The disk

    async def record(self) -> None:
        """Record what the gateway sends, until cancelled."""
        while True:
            await self._news.wait()
            self._news.clear()
            try:
                await self._record()
            except OutboxError as exc:
                self._store.complain(exc)
                await self._clock.sleep(_RETRY_S)
                self._news.set()

    async def _record(self) -> None:
        arrivals, settled = list(self._arrivals), list(self._settled)
        log = self._store.outbox.commands
        receipts = await self._store.run(
            lambda: log.advance([arrival for _session, arrival in arrivals], settled)
        )
        for _ in settled:
            self._settled.popleft()
        for (session, arrival), receipt in zip(arrivals, receipts, strict=True):
            self._arrivals.popleft()
            self._on_recorded(session, arrival, receipt)
        self._board.changed()

    def _on_recorded(self, session: int, arrival: Arrival, receipt: Receipt) -> None:
        if receipt.is_new:
            self._open[arrival.id] = _Open(len(arrival.data))
            self._acknowledge(session, arrival.id)
            self._offer(arrival)
        elif receipt.outcome is None:
            self._acknowledge(session, arrival.id)
        else:
            result = _result(arrival.id, receipt.outcome)
            self._outgoing.put_in(session, frames.encode_received(arrival.id), result)

    def _acknowledge(self, session: int, identity: str) -> None:
        """Say that a command is on the disk, and its result if there is one."""
        held = self._open.get(identity)
        result = held.result if held is not None else None
        receipt = frames.encode_received(identity)
        self._outgoing.put_in(session, receipt, *([] if result is None else [result]))

    def _offer(self, arrival: Arrival) -> None:
        """Queue a recorded command for the application."""
        try:
            data = json.loads(arrival.data)
        except (ValueError, RecursionError) as exc:
            _log.warning("a command was not handed over: data cannot be read: %s", exc)
            self._conclude(arrival.id, _unusable(f"data cannot be read: {exc}"))
        else:
            self.commands.append(
                Command(arrival.id, arrival.type, data, queued=True, trace=arrival.trace)
            )

    # The application

    async def take(self, command: Command, *, give: bool = True) -> bool:
        """Take the first command that waits, so that it can be handed over.

        Args:
            command: the first of `commands`.
            give: whether the application gets it; else it is answered without the application.

        Returns:
            Whether it may be handed over. If not, it waits again, or its time has passed and it is
            answered.
        """
        taken = self.commands.popleft()
        assert taken is command
        held = self._open.get(command.id) if command.queued else None
        if held is None:
            return True
        expired = None
        try:
            if give:
                expired = await self._store.run(
                    lambda: self._store.outbox.commands.give(command.id)
                )
        except OutboxError as exc:
            self.commands.appendleft(command)
            self._store.complain(exc)
            await self._clock.sleep(_RETRY_S)
            return False
        except BaseException:  # cancelled: it was not handed over, so that it waits again
            self.commands.appendleft(command)
            raise
        if expired is not None:
            _log.warning("command %s was not handed over: its time has passed", command.id)
            self._conclude(command.id, expired)
            self._board.changed()
            return False
        held.given = True
        return True

    async def answer(self, identity: str, outcome: Outcome) -> None:
        """Answer a command. The result of a queued one is on the disk afterwards. If the disk
        refuses, the result is sent all the same.

        Raises:
            Rejected: no command can have this id, or a queued one does not wait for an answer.
        """
        if not isinstance(identity, str) or len(identity) > _COMMAND_ID_CHARS_MAX:
            raise Rejected(f"no command has an id of more than {_COMMAND_ID_CHARS_MAX} characters")
        held = self._open.get(identity)
        if held is None:
            self._answers.append(_result(identity, outcome))
            self._board.changed()
            return
        if not held.given:
            raise Rejected(f"command {identity} does not wait for an answer")
        held.given = False
        try:
            await self._store.run(lambda: self._store.outbox.commands.finish(identity, outcome))
        except OutboxError as exc:
            self._store.complain(exc)
        finally:  # cancelled, the thread records it all the same
            self._conclude(identity, outcome)
            self._board.changed()

    def _conclude(self, identity: str, outcome: Outcome) -> None:
        """Send the result of a queued command now, and after each welcome until it is settled."""
        held = self._open[identity]
        held.result = _result(identity, outcome)
        held.size = len(held.result)
        self._outgoing.put(held.result)


def _result(identity: str, outcome: Outcome) -> bytes:
    return frames.encode_named(
        "result", frames.Result(identity, outcome.ok, msgspec.Raw(outcome.data))
    )


def _unusable(problem: str) -> Outcome:
    return Outcome(False, msgspec.json.encode({"error": problem[:200]}))
