"""The state of a device in one session which asked for it: with the welcome, or right behind it."""

import asyncio
from collections.abc import Callable
from typing import Protocol

from msgspec import UNSET, Raw, UnsetType

from gateway.edge.observer import EdgeObserver
from gateway.edge.ports import PAUSED_BY_RESUME, Connection
from gateway.session.desired import DesiredState, Version
from tidegate.wire import frames

Key = tuple[str, str]
"""Tenant and device."""


class States(Protocol):
    """What the node knows of states. Versions with sequence 0 stand for "no state was set"."""

    @property
    def wait_s(self) -> float:
        """How long a welcome waits for a state that is not known."""

    def known(self, key: Key) -> tuple[Version, bytes] | None:
        """The state of a device; None if the stream must be asked."""

    def ask(
        self, key: Key, held: Version | None, answer: Callable[[Version, bytes, bool], None]
    ) -> None:
        """Ask the stream.

        Args:
            key: tenant and device.
            held: the version that the device says it has.
            answer: takes version, state, and whether the stream's leader says so. Called once.
        """

    def forget(self, key: Key, answer: Callable[[Version, bytes, bool], None]) -> None:
        """The answer is not needed any more."""


class StateTalk:
    """Sends one session the states that its device does not have."""

    __slots__ = (
        "_connection",
        "_desired",
        "_key",
        "_observer",
        "_patient",
        "_ready",
        "_states",
        "_timer",
        "_waits",
        "_welcomed",
    )

    def __init__(
        self, states: States, key: Key, held: str, connection: Connection, observer: EdgeObserver
    ) -> None:
        """
        Args:
            states: of the node.
            key: tenant and device.
            held: the version that the device says it has; empty for none.
            connection: of the session.
            observer: counts what is sent.
        """
        self._states = states
        self._key = key
        self._connection = connection
        self._observer = observer
        self._desired = DesiredState(held)
        self._ready: Callable[[], None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._welcomed = False
        self._patient = True
        """Whether the welcome may wait; it waits once."""
        known = states.known(key)
        self._waits = known is None or self._desired.ahead_of(known[0])
        """Whether the stream is being asked."""
        if self._waits:
            self._ask()

    def wait(self, ready: Callable[[], None], loop: asyncio.AbstractEventLoop) -> bool:
        """Wait for the state before the welcome.

        Args:
            ready: called once the state is known, or the time for it is over.
            loop: for the time.

        Returns:
            False if there is nothing to wait for; then `ready` is not called.
        """
        if not self._waits or not self._patient:
            return False
        self._patient = False
        self._connection.pause_reading(PAUSED_BY_RESUME)
        self._ready = ready
        self._timer = loop.call_later(self._states.wait_s, self._go_on)
        return True

    def for_welcome(self) -> frames.State | UnsetType:
        """What the welcome tells, or what follows the answer to a further hello. A state that is
        still being asked for follows later.
        """
        self._welcomed = True
        found = self._states.known(self._key)
        if found is None:
            self.ask_again()
        elif not self._desired.ahead_of(found[0]) and self._desired.take(found[0]):
            self._observer.state_sent("welcome")
            return frames.State(str(found[0]), Raw(found[1]))
        return UNSET

    def tell(self, version: Version, desired: bytes) -> None:
        """A state was set, or found: send it if the device does not have it."""
        if not self._welcomed or not self._connection.is_open:
            return
        if self._connection.congested:
            self._observer.state_sent("later")  # only the newest is sent once the device reads
        elif self._desired.take(version):
            state = frames.State(str(version), Raw(desired))
            self._connection.send_text(frames.encode_named("state", state))
            self._observer.state_sent("frame")

    def catch_up(self) -> None:
        """Send what could not be sent while the device did not read."""
        found = self._states.known(self._key)
        if found is not None:
            self.tell(*found)

    def ask_again(self) -> None:
        """The stream must be asked: what was known is forgotten, or of another stream."""
        if not self._waits:
            self._waits = True
            self._ask()

    def enter(self, epoch: str) -> None:
        """The stream was made anew: the device gets its state of the new one."""
        self._desired.enter(epoch)
        self.ask_again()

    def close(self) -> None:
        """The connection is gone."""
        self._ready = None
        if self._timer is not None:
            self._timer.cancel()
        if self._waits:
            self._states.forget(self._key, self._answered)

    def _ask(self) -> None:
        self._states.ask(self._key, self._desired.told, self._answered)

    def _answered(self, version: Version, desired: bytes, verified: bool) -> None:  # a callback
        self._waits = False
        if verified and self._desired.ahead_of(version):
            self._desired.disprove()
        if self._ready is not None:
            self._go_on()
        else:
            self.tell(version, desired)

    def _go_on(self) -> None:
        """Send the welcome now."""
        ready, self._ready = self._ready, None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if ready is not None:
            self._connection.resume_reading(PAUSED_BY_RESUME)
            ready()
