"""A gateway in memory, for the tests of an application: it does at once what a test demands."""

import asyncio
import base64
import contextlib
import itertools
import json
import random
from collections.abc import Awaitable, Callable, Sequence
from types import TracebackType
from typing import Any, Final, Self

from tidegate.connection import Closed
from tidegate.environment import Environment
from tidegate.testing.clock import FakeClock
from tidegate.testing.inline import InlineExecutor
from tidegate.testing.listener import Knock, Listener, Play
from tidegate.testing.peer import Peer
from tidegate.testing.queue import CommandResult, QueuedCommand
from tidegate.testing.refusals import Answer
from tidegate.testing.session import Demands, GatewaySession
from tidegate.testing.stream import RejectedMessage, Rule, StoredMessage, Stream
from tidegate.wire import frames

__all__ = ["CommandResult", "Gateway", "QueuedCommand", "unsigned_jwt"]

_URL: Final = "ws://gateway.test/v1/device"


def unsigned_jwt(**claims: Any) -> str:
    """A token of which a client can read the claims. No real gateway believes it."""

    def part(value: Any) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()

    return f"{part({'alg': 'none'})}.{part(claims)}.{part('no signature')}"


class Gateway:
    """The gateway of one device: `async with Gateway() as gateway: ...`.

    It lets the device in, and stores and acknowledges every message, until a test says otherwise.
    `environment` is what the device needs: connections in memory, a clock that jumps, randomness
    from a seed. Give it as `Device(..., environment=gateway.environment)`.
    """

    def __init__(self, *, seed: int = 0, clock: FakeClock | None = None, **welcome: Any) -> None:
        """
        Args:
            seed: of the device's randomness.
            clock: the device's time; the default jumps when every task waits.
            welcome: members of the `welcome` that differ from the defaults, such as
                `max_message_bytes`.
        """
        self.url = _URL
        self.credential = unsigned_jwt(sub="veh-1")
        """A token in the form of a JWT. This gateway believes any token."""
        self.clock = clock if clock is not None else FakeClock(autojump=True)
        self._welcome = welcome
        self._stream = Stream()
        self._demands = Demands()
        self._sessions: list[GatewaySession] = []
        self._connected = asyncio.Event()
        self._command_ids = map(str, itertools.count(1))
        self._listener = Listener(self._reply, self.clock.stir)
        self.environment = Environment(
            clock=self.clock,
            rng=random.Random(seed),
            connect=self._listener.connect,
            executor=InlineExecutor,
        )

    async def __aenter__(self) -> Self:
        await self._listener.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._listener.__aexit__(kind, error, trace)

    # What has happened

    @property
    def stored(self) -> Sequence[StoredMessage]:
        """The messages in the stream, each of them once."""
        return self._stream.stored

    @property
    def rejected(self) -> Sequence[RejectedMessage]:
        """The messages in the dead letters."""
        return self._stream.rejected

    @property
    def knocks(self) -> Sequence[Knock]:
        """Every attempt of the device to connect: address, credential and ticket."""
        return self._listener.knocks

    @property
    def renewed(self) -> Sequence[str]:
        """The fresh credentials that the device has shown on its present connection."""
        return self._sessions[-1].credentials if self._sessions else []

    # Knocks

    def refuse(self, *answers: Answer) -> None:
        """Refuse the next knocks, one with each of these. See `tidegate.testing.refusals`."""
        self._demands.refusals.extend(answers)

    def go_down(self) -> None:
        """Lose every connection, and answer no knock until `come_up`."""
        self._demands.down = True
        self.cut()

    def come_up(self) -> None:
        """Answer knocks again."""
        self._demands.down = False

    def _reply(self, _knock: Knock) -> Answer | Play | None:
        if self._demands.down:
            return None
        refusals = self._demands.refusals
        return refusals.popleft() if refusals else self._play

    async def _play(self, peer: Peer) -> None:
        session = GatewaySession(
            peer, self._stream, self._demands, self._welcome, self._connected.set
        )
        for older in self._sessions:
            if not older.sent_away:
                await older.close(frames.CLOSE_TAKEN_OVER, {"error": "taken_over"})
        self._sessions.append(session)
        try:
            await session.play()
        finally:
            self._sessions.remove(session)
            if not any(each.welcomed for each in self._sessions):
                self._connected.clear()

    # Messages

    def reject(self, rule: Rule | None) -> None:
        """Reject the messages for which `rule` returns an error; None takes every message."""
        self._stream.rule = rule

    async def hold(self, reason: str = "stream") -> None:
        """The stream is away: settle nothing, and grant no credit, until `release`."""
        self._demands.hold = reason
        for session in self._sessions:
            with contextlib.suppress(Closed):
                await session.hold(reason)

    async def release(self) -> None:
        """End a hold."""
        self._demands.hold = None
        await self._settle()

    def withhold_acks(self) -> None:
        """Store messages from now on without saying so, as if the acknowledgements were lost."""
        self._demands.acknowledge = False

    async def acknowledge(self) -> None:
        """Say what is settled, now and from now on."""
        self._demands.acknowledge = True
        await self._settle()

    async def _settle(self) -> None:
        await self._for_each_session(GatewaySession.settle)

    # State and commands

    async def set_state(self, desired: Any) -> str:
        """The operators say what the device should be like.

        Returns:
            The version of this state.
        """
        self._demands.state.set(desired)
        await self._for_each_session(GatewaySession.send_state)
        return self._demands.state.version

    def lose_states(self) -> None:
        """The stream of states was lost and made anew: versions have another epoch."""
        self._demands.state.make_anew()

    async def queue_command(
        self,
        command_type: str,
        data: Any = None,
        *,
        command_id: str | None = None,
        ttl_ms: int | None = None,
    ) -> QueuedCommand:
        """Queue a command. It waits for the device, and is sent again until it has a result.

        Args:
            command_type: of the command.
            data: anything with a JSON form.
            command_id: an id of the test's choice; the default is a new one.
            ttl_ms: how long after its arrival the application may still be given it.

        Returns:
            The command: `status`, and `await result()`.
        """
        identity = command_id if command_id is not None else next(self._command_ids)
        command = QueuedCommand(identity, command_type, data, ttl_ms)
        queue = self._demands.queue
        queue.commands.append(command)
        if queue.next() is command:
            await self._for_each_session(GatewaySession.send_next_command)
        return command

    def withhold_settled(self) -> None:
        """Store the results of queued commands from now on without saying so."""
        self._demands.settle_results = False

    def settle_results(self) -> None:
        """Say `settled` for the results that arrive from now on."""
        self._demands.settle_results = True

    async def _for_each_session(self, act: Callable[[GatewaySession], Awaitable[None]]) -> None:
        for session in self._sessions:
            with contextlib.suppress(Closed):  # it has ended meanwhile; the next one is told
                await act(session)

    # The connection

    async def session(self) -> GatewaySession:
        """The device's present session; wait for one if there is none."""
        await self._connected.wait()
        return next(each for each in reversed(self._sessions) if each.welcomed)

    async def command(self, command_type: str, data: Any = None) -> CommandResult:
        """Send a command to the device once it is connected, and wait for its answer.

        Raises:
            Closed: the connection ended before the answer came.
        """
        session = await self.session()
        return await session.command(next(self._command_ids), command_type, data)

    async def send_away(self, retry_ms: int = 1_000, ticket: str = "") -> None:
        """This node drains: the device must connect again, in the slot of `ticket`."""
        session = await self.session()
        await session.send_away(retry_ms, ticket)

    async def notice(self, first_retry_ms: int) -> None:
        """The fleet has grown or shrunk: over how long it spreads its first attempt."""
        session = await self.session()
        await session.notice(first_retry_ms)

    async def close(self, code: int, reason: Any = "") -> None:
        """Close the connection with a code of the contract, such as 4401 or 4403."""
        session = await self.session()
        await session.close(code, reason)

    def cut(self) -> None:
        """Lose the connection without a word."""
        for session in self._sessions:
            session.cut()
