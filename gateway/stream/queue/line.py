"""A session and its queued commands, and what the queue needs of stream and session. Pure."""

from collections import deque
from dataclasses import dataclass
from typing import Final, Protocol

from msgspec import Struct

from gateway.stream.queue.facts import DeviceKey, Entry, Fact, Stored
from gateway.stream.queue.status import Status
from tidegate.wire import frames

ANSWERS_MAX: Final = 256
"""Answers of one session that wait for their turn. The device sends again what is not settled."""


class Store(Protocol):
    """The stream COMMANDS. Every method raises `StoreAway` if the answer is not known."""

    async def entry(self, seq: int) -> Entry | None:
        """The entry at a sequence; None if it is deleted.

        Raises:
            EntryError: it can be given to no device.
        """

    async def last(self, key: DeviceKey, command_id: str) -> Stored | None:
        """The last fact of a command, as the stream's leader has it."""

    async def write(self, key: DeviceKey, command_id: str, fact: Fact, after: int) -> int:
        """Store a fact behind the one at `after` (0: the first one). Returns its sequence.

        Raises:
            FactConflict: it would not stand behind that one.
        """

    async def delete(self, seq: int) -> None:
        """Delete an entry. Nothing if it is deleted already."""


class Seat(Protocol):
    """A session of a device, as the queue sees it."""

    fence: int

    @property
    def receipts(self) -> bool:
        """Whether the device keeps the ids of commands on its disk."""

    @property
    def takes_commands(self) -> bool:
        """Whether a command can be sent now."""

    def command(self, command: frames.Command) -> bool:
        """Send a command; False if it was not sent."""

    def settled(self, command_id: str) -> None:
        """Tell the device that its result is stored."""


class InFlight(Struct):
    """A command that this session has been given."""

    entry: int
    seq: int
    """Of its last fact."""
    status: Status


class Line:
    """A session and its commands."""

    __slots__ = ("_receipts", "alive", "answers", "busy", "fence", "given", "key", "seat")

    def __init__(self, key: DeviceKey, seat: Seat) -> None:
        self.key = key
        self.seat = seat
        self.fence = seat.fence
        self._receipts = seat.receipts
        self.busy = False
        """Whether a step of it runs, or will run."""
        self.alive = True
        """Whether this session may be given commands: it lives, and no newer one has its place."""
        self.answers: deque[frames.Result | frames.Received] = deque()
        self.given: dict[str, InFlight] = {}

    @property
    def receipts(self) -> bool:
        """Whether the device keeps the ids of commands on its disk, as far as it has said so: in
        its first hello or in a further one. It is kept here, because a session that has ended no
        longer knows it.
        """
        self._receipts = self._receipts or self.seat.receipts
        return self._receipts

    def received(self) -> None:
        """The device says that a command is on its disk, whatever its hello said."""
        self._receipts = True

    @property
    def owed(self) -> bool:
        """Whether a fact must be stored for this session before it can be forgotten."""
        return bool(self.answers) or (bool(self.given) and not self.receipts)


@dataclass(frozen=True, slots=True)
class QueueLimits:
    """Times in seconds."""

    in_flight_max: int = 1
    """Commands that one device may have without a result."""
    result_wait_s: float = 3600.0
    """How long after its expiry a command that was sent may still have its result."""


class QueueObserver:
    """Hooks; each does nothing unless overridden."""

    def stored(self, status: Status) -> None:
        """A fact was stored."""

    def repeated(self) -> None:
        """A step did not succeed, and is taken again."""

    def ignored(self, what: str) -> None:
        """An answer of a device meant nothing, or an entry could not be read; of a fixed set."""
