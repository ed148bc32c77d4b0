"""What the operators of a test want: a state, and commands that wait for their device."""

import asyncio
import json
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from msgspec import UNSET

from tidegate.states import replaces
from tidegate.wire import frames


class CommandResult(NamedTuple):
    """How a device answered a command."""

    ok: bool
    data: Any

    @classmethod
    def of(cls, result: frames.Result) -> "CommandResult":
        """What a frame says."""
        return cls(result.ok, None if result.data is UNSET else json.loads(bytes(result.data)))


@dataclass(slots=True)
class QueuedCommand:
    """A command in the queue, and how far it has come."""

    id: str
    type: str
    data: Any
    ttl_ms: int | None = None
    """How long after its arrival the application may still be given it; None: for ever."""
    status: Literal["queued", "sent", "delivered", "done", "failed", "expired"] = "queued"
    sent: int = 0
    """How often it was sent."""
    answer: asyncio.Future[CommandResult] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )

    @property
    def is_final(self) -> bool:
        """Whether its result is stored."""
        return self.status in ("done", "failed", "expired")

    async def result(self) -> CommandResult:
        """Wait for the device's answer, over as many connections as it takes."""
        return await asyncio.shield(self.answer)

    def frame(self) -> dict[str, Any]:
        """It is sent."""
        self.sent += 1
        self.status = "sent" if self.status == "queued" else self.status
        command = {"id": self.id, "type": self.type, "data": self.data, "queued": True}
        if self.ttl_ms is not None:
            command["ttl_ms"] = self.ttl_ms
        return {"command": command}


class CommandQueue:
    """The commands of the device, in order. One is on its way at a time."""

    def __init__(self) -> None:
        self.commands: list[QueuedCommand] = []

    def next(self) -> QueuedCommand | None:
        """The first command without a result."""
        return next((each for each in self.commands if not each.is_final), None)

    def on_received(self, command_id: str) -> None:
        """The device has it on its disk."""
        for each in self.commands:
            if each.id == command_id and each.status == "sent":
                each.status = "delivered"

    def on_result(self, result: frames.Result) -> bool:
        """The device has answered. Returns whether it answered a queued command."""
        same = [each for each in self.commands if each.id == result.id]
        for each in same:
            if not each.is_final:
                answer = CommandResult.of(result)
                expired = not result.ok and answer.data == {"error": "expired"}
                each.status = "done" if result.ok else "expired" if expired else "failed"
                each.answer.set_result(answer)
        return bool(same)


class StateOfDevice:
    """What the device should be like."""

    def __init__(self) -> None:
        self._epoch, self._number = 1, 0
        self._desired: Any = None

    @property
    def version(self) -> str:
        return f"test{self._epoch}-{self._number}"

    def set(self, desired: Any) -> None:
        self._number += 1
        self._desired = desired

    def make_anew(self) -> None:
        """The stream of states was lost and made anew: numbers start again."""
        self._epoch += 1
        self._number, self._desired = 0, None

    def newer_than(self, held: str) -> dict[str, Any] | None:
        """The member or frame `state` for a device that holds a version; None if it is newest."""
        if self._number and replaces(self.version, held):
            return {"version": self.version, "desired": self._desired}
        return None
