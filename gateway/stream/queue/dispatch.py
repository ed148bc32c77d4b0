"""Which session takes its next step now: answers first, then deliveries, which are paced.

A step costs the stream some requests and the node some 100 us, so a storm of devices with commands
must not delay the devices' messages. Steps are bounded in number at once, deliveries are bounded in
number a second, and none starts while messages wait. A step whose outcome is not known is repeated
after a jittered wait; while there is no connection to NATS, no step starts.
"""

import asyncio
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from gateway import tasks
from gateway.stream.errors import FactConflict, StoreAway
from gateway.stream.queue.facts import DeviceKey
from gateway.stream.queue.index import QueueIndex
from gateway.stream.queue.line import ANSWERS_MAX, Line, QueueObserver, Seat
from gateway.stream.queue.turns import Turns
from tidegate.wire import frames

_STEPS_MAX: Final = 32
"""Steps that run at once, and so the facts that are written at once."""
_AGAIN_S: Final = (0.2, 2.0)
"""The wait before a step that did not succeed is repeated, or a busy device is tried again."""
_BURST_S: Final = 0.02
"""Deliveries of so much time may begin at once: a timer for each would cost more."""
_LOOK_S: Final = 0.1
"""While messages wait, the dispatcher looks again after this."""
_LEFT_MAX: Final = 10_000
"""Sessions that have ended and still owe a fact. Beyond it, the next node that reads the command
stores that its outcome is unknown."""


class Sessions(Protocol):
    """The sessions of this node."""

    def seat(self, key: DeviceKey) -> Seat | None:
        """The established session that speaks for a device here."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How deliveries are held back."""

    per_s: Callable[[], float]
    """Deliveries that may begin a second, now."""
    room: Callable[[], bool]
    """Whether the devices' messages leave room for commands now."""


class Dispatch:
    """The lines of this node and their turns."""

    def __init__(
        self,
        turns: Turns,
        index: QueueIndex,
        sessions: Sessions,
        pace: Pace,
        *,
        observer: QueueObserver,
        rng: random.Random,
        on_failure: Callable[[BaseException], None],
    ) -> None:
        """
        Args:
            turns: takes the steps.
            index: the entries.
            sessions: of this node.
            pace: holds deliveries back.
            observer: hooks.
            rng: source of jitter.
            on_failure: hears of a step that failed in a way that nobody expected.
        """
        self._turns = turns
        self._index = index
        self._sessions = sessions
        self._pace = pace
        self._observer = observer
        self._rng = rng
        self._crew = tasks.Crew(on_failure)
        self._lines: dict[DeviceKey, Line] = {}
        self._left: dict[DeviceKey, list[Line]] = {}
        """Sessions that have ended and owe a fact. A newer session of the device waits for them."""
        self._ready = _Ready()
        self._next_at = 0.0

    def __len__(self) -> int:
        """Sessions with commands."""
        return len(self._lines)

    @property
    def steps(self) -> int:
        """Steps that run now."""
        return self._ready.running

    # What happens

    def established(self, key: DeviceKey, fence: int) -> None:
        """A device has connected here."""
        del fence
        if key in self._index or key in self._lines:
            self._open(key)

    def ended(self, key: DeviceKey, fence: int) -> None:
        """A session is gone."""
        line = self._lines.get(key)
        if line is not None and line.fence == fence:
            self._retire(line)

    def arrived(self, key: DeviceKey) -> None:
        """A command for a device was read from the queue."""
        line = self._lines.get(key)
        if line is None:
            self._open(key)
        else:
            self._schedule(line)

    def answered(self, key: DeviceKey, answer: frames.Result | frames.Received) -> bool:
        """A device answered. False if the answer cannot be of a queued command."""
        line = self._lines.get(key)
        seat = self._sessions.seat(key)
        if seat is None or (line is not None and line.seat is not seat):
            return False  # of a session that no longer speaks for its device
        if not seat.receipts and (line is None or answer.id not in line.given):
            return False
        if line is None:
            line = self._lines[key] = Line(key, seat)
        if len(line.answers) >= ANSWERS_MAX:
            self._observer.ignored("flood")  # the device sends again what is not settled
            return True
        line.answers.append(answer)
        self._schedule(line)
        return True

    def holds(self, key: DeviceKey, command_id: str) -> bool:
        """Whether a session here has this command."""
        line = self._lines.get(key)
        return line is not None and command_id in line.given

    def release(self, key: DeviceKey, command_id: str) -> None:
        """This command has its final status: the session waits for its result no longer."""
        line = self._lines.get(key)
        if line is not None and line.given.pop(command_id, None) is not None:
            self._schedule(line)

    def on_up(self) -> None:
        """There is a connection to NATS."""
        self._ready.wake.set()

    # Lines

    def _open(self, key: DeviceKey) -> None:
        seat = self._sessions.seat(key)
        line = self._lines.get(key)
        if line is not None and line.seat is not seat:
            self._retire(line)
            line = None
        if seat is None:
            return
        if line is None:
            line = self._lines[key] = Line(key, seat)
        self._schedule(line)

    def _retire(self, line: Line) -> None:
        line.alive = False
        del self._lines[line.key]
        if (line.owed or line.busy) and len(self._left) < _LEFT_MAX:
            self._left.setdefault(line.key, []).append(line)
            self._schedule(line)

    def _schedule(self, line: Line) -> None:
        if line.busy:
            return  # it is looked at again when its step has ended
        if line.answers or not line.alive:
            line.busy = True
            self._ready.answers.append(line)
        elif line.key not in self._left and self._turns.next(line) is not None:
            line.busy = True
            self._ready.deliveries.append(line)
        elif not line.given and line.key not in self._index:
            self._lines.pop(line.key, None)  # nothing is left to do
            return
        self._ready.wake.set()

    # Steps

    async def run(self) -> None:
        """Start steps as there is room for them, until cancelled."""
        loop, ready = asyncio.get_running_loop(), self._ready
        try:
            while True:
                await ready.wake.wait()
                ready.wake.clear()
                while ready.running < _STEPS_MAX and (line := self._take(loop)) is not None:
                    ready.running += 1
                    self._crew.start(self._step(line), "command-step")
        finally:
            await self._crew.close()

    def _take(self, loop: asyncio.AbstractEventLoop) -> Line | None:
        ready = self._ready
        if ready.answers:
            return ready.answers.popleft()
        if not ready.deliveries:
            return None
        now = loop.time()
        room = self._pace.room()
        if not room or self._next_at - now > _BURST_S:
            ready.wake_after(self._next_at - now if room else _LOOK_S, loop)
            return None
        each_s = 1 / self._pace.per_s()
        self._next_at = max(self._next_at, now - each_s) + each_s
        return ready.deliveries.popleft()

    async def _step(self, line: Line) -> None:
        again = False
        try:
            if line.answers:
                await self._turns.answer(line)
            elif not line.alive:
                await self._turns.lost(line)
            elif line.seat.takes_commands:
                await self._turns.give(line)
            else:
                again = self._turns.next(line) is not None
        except (StoreAway, FactConflict):
            self._observer.repeated()
            again = True
        finally:
            self._ready.running -= 1
            self._ready.wake.set()
        if again:
            delay_s = self._rng.uniform(*_AGAIN_S)
            asyncio.get_running_loop().call_later(delay_s, self._ended_step, line)
        else:
            self._ended_step(line)

    def _ended_step(self, line: Line) -> None:
        line.busy = False
        left = self._left.get(line.key)
        if left is not None and line in left and not line.owed:
            left.remove(line)
            if not left:
                del self._left[line.key]
                self._open(line.key)
        elif line.alive or line.owed:
            self._schedule(line)


class _Ready:
    """Lines whose next step can start, and the steps that run."""

    __slots__ = ("_timer", "answers", "deliveries", "running", "wake")

    def __init__(self) -> None:
        self.answers: deque[Line] = deque()
        """Those with an answer to store, and those that have ended."""
        self.deliveries: deque[Line] = deque()
        self.running = 0
        self.wake = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None

    def wake_after(self, wait_s: float, loop: asyncio.AbstractEventLoop) -> None:
        """Look again then; one timer is enough."""
        if self._timer is None:
            self._timer = loop.call_later(wait_s, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self.wake.set()
