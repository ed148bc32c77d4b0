"""One connection of a device, seen from the gateway: the contract's words, for scripts of tests."""

import contextlib
import json
from typing import Any, Final, Protocol

from tidegate.connection import Closed

WELCOME: Final[dict[str, Any]] = {
    "session": "s",
    "credit": 1_000,
    "max_message_bytes": 65_536,
    "first_retry_ms": 2_000,
    "keepalive_ms": 30_000,
    "max_frame_bytes": 262_144,
    "max_messages_per_frame": 1_000,
    "max_depth": 32,
    "features": ["outboxes"],
}
"""What a `welcome` says unless a test says otherwise."""


class Far(Protocol):
    """The gateway's end of a connection."""

    async def send(self, frame: bytes) -> None: ...

    async def receive(self) -> bytes: ...

    async def close(self, code: int, reason: str) -> None: ...

    def cut(self) -> None: ...


class Peer:
    """A device that has connected. Every method raises `Closed` once the device has gone."""

    def __init__(self, far: Far) -> None:
        self.far = far
        self.outbox = ""
        """The id of the last hello."""
        self.seqs: list[int] = []
        """The seqs of the messages that `serve` has acknowledged."""

    async def say(self, frame: Any) -> None:
        """Send a frame; text is sent as it is."""
        text = frame if isinstance(frame, str) else json.dumps(frame)
        await self.far.send(text.encode())

    async def hear(self) -> Any:
        """The next frame."""
        return json.loads(await self.far.receive())

    async def hello(self) -> dict[str, Any]:
        """The next frame, which must be a hello: its members."""
        hello: dict[str, Any] = (await self.hear())["hello"]
        self.outbox = hello["outbox"]
        return hello

    async def greet(self, resume: int | None = None, **welcome: Any) -> dict[str, Any]:
        """Answer the first hello.

        Args:
            resume: `resume.seq`; everything before the oldest message if it is None.
            welcome: members of the `welcome` that differ; `base` replaces all of them.

        Returns:
            The members of the hello.
        """
        hello = await self.hello()
        base = welcome.pop("base", WELCOME)
        seq = hello["oldest"] - 1 if resume is None else resume
        at = {"outbox": hello["outbox"], "seq": seq}
        await self.say({"welcome": {**base, "resume": at, **welcome}})
        return hello

    async def resume(self, hello: dict[str, Any], credit: int = 1_000) -> None:
        """Answer a further hello."""
        self.outbox = hello["outbox"]
        at = {"outbox": hello["outbox"], "seq": hello["oldest"] - 1}
        await self.say({"resume": at, "credit": credit})

    async def serve(self) -> None:
        """Acknowledge everything, and answer further hellos, until the device has gone."""
        with contextlib.suppress(Closed):
            while True:
                frame = await self.hear()
                if isinstance(frame, dict) and "hello" in frame:
                    await self.resume(frame["hello"])
                    continue
                for message in messages_of(frame):
                    self.seqs.append(message["seq"])
                    await self.say({"ack": message["seq"], "credit": 1_000})

    async def close(self, code: int, reason: Any = "") -> None:
        """Close the connection; a reason that is no text is sent as JSON."""
        await self.far.close(code, reason if isinstance(reason, str) else json.dumps(reason))

    def cut(self) -> None:
        """Lose the connection."""
        self.far.cut()

    async def gone(self) -> None:
        """Wait until the device has gone."""
        with contextlib.suppress(Closed):
            while True:
                await self.far.receive()


def messages_of(frame: Any) -> list[dict[str, Any]]:
    """The messages in a frame: several, one, or none."""
    if isinstance(frame, list):
        return frame
    return [frame] if "seq" in frame else []
