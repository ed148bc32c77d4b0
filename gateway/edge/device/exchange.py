"""What operators and a device tell each other in one session, beside messages and acks."""

from collections.abc import Callable
from typing import Final

from msgspec import UNSET

from gateway.edge.device.context import DeviceContext
from gateway.edge.device.state_talk import StateTalk
from gateway.edge.ports import Connection
from gateway.session.machine import Session
from gateway.session.regions import State
from tidegate.wire import frames

_NOTICE_CHANGE: Final = 0.25
"""A change of first_retry_ms by a smaller share is not worth a frame to every device."""


class Exchange:
    """Commands and their results, states, and what the welcome told, of one session."""

    __slots__ = (
        "_connection",
        "_context",
        "_first_retry_ms",
        "_key",
        "_session",
        "_state",
        "acked_at",
        "fence",
        "receipts",
    )

    def __init__(
        self,
        context: DeviceContext,
        key: tuple[str, str],
        session: Session,
        connection: Connection,
    ) -> None:
        """
        Args:
            context: what all devices of a node share.
            key: tenant and device.
            session: which the connection carries.
            connection: open; the handler drops the exchange when the connection is gone.
        """
        self._context = context
        self._key = key
        self._session = session
        self._connection = connection
        self._first_retry_ms = 0
        self.fence = 0
        """Of the session; 0 before its welcome."""
        self.receipts = False
        """Whether the device keeps the ids of queued commands on its disk."""
        self._state: StateTalk | None = None
        self.acked_at = 0.0
        """When the last ack was sent, by `time.perf_counter`; 0 before the first."""

    @property
    def state(self) -> StateTalk | None:
        """Of a session which asked for it."""
        return self._state

    def greet(self, hello: frames.Hello) -> None:
        """A hello has come, the first one or a further one."""
        if hello.state is not UNSET and self._state is None:
            context = self._context
            self._state = StateTalk(
                context.states, self._key, hello.state, self._connection, context.observer
            )

    def waits(self, go_on: Callable[[], None]) -> bool:
        """Whether the welcome waits for something; then `go_on` is called after it, once."""
        return self._state is not None and self._state.wait(go_on, self._context.loop)

    def welcome(self, hello: frames.Hello, fence: int) -> None:
        """The session has begun: tell the device.

        Args:
            hello: the first one of the session.
            fence: of the session.
        """
        session = self._session
        self.fence, self.receipts = fence, hello.receipts is True
        state = self._state.for_welcome() if self._state is not None else UNSET
        welcome = self._context.welcome(hello.outbox, session.acked, session.credit, state)
        session.id = welcome.session
        self._first_retry_ms = welcome.first_retry_ms
        self._connection.send_text(frames.encode_named("welcome", welcome))

    def further(self, hello: frames.Hello) -> None:
        """A further hello has its answer. It may say more than the first one: a client that does
        not know yet what the gateway understands begins with a plain hello.
        """
        self.receipts = self.receipts or hello.receipts is True
        asked_before = self._state is not None
        self.greet(hello)
        if asked_before or self._state is None:
            return
        state = self._state.for_welcome()
        if state is not UNSET:
            self._connection.send_text(frames.encode_named("state", state))

    def close(self) -> None:
        """The connection is gone."""
        if self._state is not None:
            self._state.close()

    def notice(self) -> None:
        """News that can wait: a state that the device did not read, and when to come back after an
        abnormal close, if that changed by much.
        """
        if self._state is not None:
            self._state.catch_up()
        first_retry_ms = self._context.fleet.first_retry_ms
        told = self._first_retry_ms
        if told and abs(first_retry_ms - told) > told * _NOTICE_CHANGE:
            self._first_retry_ms = first_retry_ms
            notice = frames.Notice(first_retry_ms)
            self._connection.send_text(frames.encode_named("notice", notice))

    @property
    def takes_commands(self) -> bool:
        """Whether a command can be sent now."""
        connection = self._connection
        established = self._session.state is State.ESTABLISHED
        return established and connection.is_open and not connection.congested

    def settled(self, command_id: str) -> None:
        """Tell the device that the result of a queued command is stored."""
        self._connection.send_text(frames.encode_settled(command_id))

    def command(self, command: frames.Command) -> bool:
        """Send a command; False if the session is not established, or its device does not read."""
        connection = self._connection
        if not connection.is_open or self._session.state is not State.ESTABLISHED:
            return False
        if connection.congested:
            self._context.observer.commanded("congested")
            return False
        connection.send_text(frames.encode_named("command", command))
        self._context.observer.commanded("sent")
        return True

    def answered(self, answer: frames.Result | frames.Received) -> None:
        """The device answered a command. It has been counted on the connection's budget."""
        outcome = "unknown"
        if self._context.on_answer(*self._key, answer):
            if isinstance(answer, frames.Received):
                outcome = "received"
            else:
                outcome = "ok" if answer.ok else "failed"
        self._context.observer.commanded(outcome)
