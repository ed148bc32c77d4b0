"""One session of a device with the gateway of a test."""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from msgspec import UNSET

from tidegate.connection import Closed
from tidegate.testing.peer import WELCOME, Peer
from tidegate.testing.queue import CommandQueue, CommandResult, StateOfDevice
from tidegate.testing.refusals import Answer
from tidegate.testing.stream import Stream
from tidegate.wire import frames

_FEATURES: Final = [frames.OUTBOXES, frames.STATE, frames.RECEIPTS]


@dataclass(slots=True)
class Demands:
    """What a test demands of every knock and session until it says otherwise."""

    down: bool = False
    """Whether nobody answers a knock."""
    refusals: deque[Answer] = field(default_factory=deque)
    """The answers to the next knocks."""
    hold: str | None = None
    """The reason of a hold, or None."""
    acknowledge: bool = True
    """Whether the device hears that its messages are settled."""
    settle_results: bool = True
    """Whether the device hears that the results of queued commands are stored."""
    state: StateOfDevice = field(default_factory=StateOfDevice)
    queue: CommandQueue = field(default_factory=CommandQueue)


@dataclass(slots=True)
class _Flow:
    """The outbox that a session takes messages from. Every outbox begins a new one."""

    outbox: str = ""
    heard: int = 0
    """The highest seq that has arrived."""
    limit: int = 0
    """The highest seq for which the device has credit."""


class GatewaySession:
    """Serves one connection."""

    def __init__(
        self,
        peer: Peer,
        stream: Stream,
        demands: Demands,
        welcome: dict[str, Any],
        on_welcome: Callable[[], None],
    ) -> None:
        self.welcomed = False
        self.sent_away = False
        self.credentials: list[str] = []
        """The fresh credentials that the device has shown on this connection."""
        self._peer = peer
        self._stream = stream
        self._demands = demands
        self._welcome = {**WELCOME, "features": _FEATURES, **welcome}
        self._on_welcome = on_welcome
        self._hello: frames.Hello | None = None
        """The last one."""
        self._flow = _Flow()
        self._unsettled: list[frames.Message] = []
        """The messages that arrived during a hold."""
        self._results: dict[str, asyncio.Future[CommandResult]] = {}

    async def play(self) -> None:
        """Serve until the connection ends."""
        try:
            hello = frames.decode_device_frame(await self._peer.far.receive())
            if not isinstance(hello, frames.Hello):
                await self._offence("hello", "the first frame is not a hello")
                return
            self._begin(hello)
            resume = {"outbox": self._flow.outbox, "seq": self._flow.heard}
            welcome = {**self._welcome, "credit": self._grant(), "resume": resume}
            state = self._state_owed()
            await self._peer.say({"welcome": welcome | ({"state": state} if state else {})})
            self.welcomed = True
            self._on_welcome()
            await self.send_next_command()
            if self._demands.hold is not None:
                await self.hold(self._demands.hold)
            while True:
                await self._on_frame(frames.decode_device_frame(await self._peer.far.receive()))
        finally:
            for result in self._results.values():
                if not result.done():
                    result.set_exception(Closed())

    def _begin(self, hello: frames.Hello) -> None:
        """Go on with an outbox: `oldest` says that everything before it is settled."""
        self._hello = hello
        self._stream.skip_to(hello.outbox, hello.oldest - 1)
        self._flow = _Flow(hello.outbox, self._stream.settled(hello.outbox))

    def _grant(self) -> int:
        credit: int = 0 if self._demands.hold is not None else self._welcome["credit"]
        self._flow.limit = max(self._flow.limit, self._flow.heard + credit)
        return credit

    async def _on_frame(self, frame: frames.Decoded) -> None:
        match frame:
            case frames.Hello():
                self._begin(frame)
                resume = {"outbox": self._flow.outbox, "seq": self._flow.heard}
                await self._peer.say({"resume": resume, "credit": self._grant()})
                await self.send_state()
            case frames.Result():
                await self._on_result(frame)
            case frames.Received():
                if frames.RECEIPTS not in self._welcome["features"]:
                    await self._offence("frame", "this gateway does not name receipts")
                self._demands.queue.on_received(frame.id)
            case str():
                self.credentials.append(frame)
            case list():
                await self._on_messages(frame)
            case _:
                await self._offence(frame.error, frame.detail)

    async def _on_result(self, result: frames.Result) -> None:
        if self._demands.queue.on_result(result):
            assert self._hello is not None
            if self._hello.receipts is True and self._demands.settle_results:
                await self._peer.far.send(frames.encode_settled(result.id))
            await self.send_next_command()
            return
        waiting = self._results.pop(result.id, None)
        if waiting is not None and not waiting.done():
            waiting.set_result(CommandResult.of(result))

    def _state_owed(self) -> dict[str, Any] | None:
        """The state, if the device has asked for it and has another one."""
        held = self._hello.state if self._hello is not None else UNSET
        asked = held is not UNSET and frames.STATE in self._welcome["features"]
        return self._demands.state.newer_than(held) if asked and held is not UNSET else None

    async def _on_messages(self, messages: list[frames.Message | frames.Unusable]) -> None:
        for message in messages:
            if message.seq != self._flow.heard + 1:
                await self._offence("gap", f"seq {message.seq} follows {self._flow.heard}")
                return
            if message.seq > self._flow.limit:
                await self._offence("credit", f"seq {message.seq} is beyond the credit")
                return
            assert isinstance(message, frames.Message)
            self._flow.heard = message.seq
            self._unsettled.append(message)
        await self.settle()

    async def _offence(self, error: str, detail: str) -> None:
        await self._peer.close(frames.CLOSE_POLICY, {"error": error, "detail": detail})

    # What a test demands

    async def settle(self) -> None:
        """Settle what was heard, and say so, as far as the demands allow it."""
        if self._demands.hold is not None or not self.welcomed:
            return
        unsettled, self._unsettled = self._unsettled, []
        for message in unsettled:
            reject = self._stream.take(self._flow.outbox, message)
            if reject is not None:
                await self._peer.far.send(frames.encode_named("reject", reject))
        if self._demands.acknowledge:
            credit = self._grant()
            await self._peer.say({"ack": self._stream.settled(self._flow.outbox), "credit": credit})

    async def send_state(self) -> None:
        state = self._state_owed()
        if state is not None and self.welcomed:
            await self._peer.say({"state": state})

    async def send_next_command(self) -> None:
        command = self._demands.queue.next()
        if command is not None and self.welcomed and not self.sent_away:
            await self._peer.say(command.frame())

    async def hold(self, reason: str) -> None:
        await self._peer.say({"hold": {"reason": reason}})

    async def send_away(self, retry_ms: int, ticket: str) -> None:
        self.sent_away = True
        await self._peer.say(
            {"goaway": {"reason": "drain", "retry_ms": retry_ms, "ticket": ticket}}
        )

    async def notice(self, first_retry_ms: int) -> None:
        await self._peer.say({"notice": {"first_retry_ms": first_retry_ms}})

    async def command(self, command_id: str, command_type: str, data: Any) -> CommandResult:
        result: asyncio.Future[CommandResult] = asyncio.get_running_loop().create_future()
        self._results[command_id] = result
        await self._peer.say({"command": {"id": command_id, "type": command_type, "data": data}})
        return await result

    async def close(self, code: int, reason: Any) -> None:
        await self._peer.close(code, reason)

    def cut(self) -> None:
        self._peer.cut()
