"""A scripted gateway in memory: a test says frame by frame what the client must meet."""

import asyncio
import json
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from support.waiting import eventually, within
from tidegate import Device, Environment
from tidegate.testing import (
    Answer,
    FakeClock,
    Gateway,
    InlineExecutor,
    Knock,
    Listener,
    Peer,
    Play,
)
from tidegate.testing.peer import WELCOME, messages_of

Script = Play | Answer | None

OLD_WELCOME = {
    name: WELCOME[name]
    for name in ("session", "credit", "max_message_bytes", "first_retry_ms", "keepalive_ms")
}
"""The `welcome` of a gateway from before `features`."""


def answer(status: int, body: Any = "", **headers: str) -> Answer:
    """An HTTP answer; a body that is not a str is sent as JSON."""
    text = body.encode() if isinstance(body, str) else json.dumps(body).encode()
    return Answer(status, text, {name.replace("_", "-"): text for name, text in headers.items()})


class ScriptedGateway:
    """Plays one script for each connection, in order; the last one is repeated.

    A script is a conversation, an answer that refuses, or None: nobody answers. `at` has scripts of
    single addresses.
    """

    url = "ws://gateway.test/v1/device"

    def __init__(
        self,
        *scripts: Script,
        at: Mapping[str, Script] | None = None,
        clock: FakeClock | None = None,
    ) -> None:
        self._scripts = list(scripts)
        self._at = at or {}
        self.clock = clock if clock is not None else FakeClock(autojump=True)
        self._listener = Listener(self._reply, self.clock.stir)
        self.environment = Environment(
            clock=self.clock,
            rng=random.Random(1),
            connect=self._listener.connect,
            executor=InlineExecutor,
        )

    def _reply(self, knock: Knock) -> Script:
        if knock.url in self._at:
            return self._at[knock.url]
        return self._scripts.pop(0) if len(self._scripts) > 1 else self._scripts[0]

    @property
    def knocks(self) -> list[Knock]:
        return self._listener.knocks

    @property
    def peers(self) -> list[Peer]:
        return self._listener.peers

    @property
    def tokens(self) -> list[str]:
        """The credentials shown, one for each knock."""
        return [knock.credential for knock in self.knocks]

    async def knocked(self, count: int) -> None:
        """Wait for so many knocks."""
        await eventually(lambda: len(self.knocks) >= count, f"{count} knocks")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._listener.__aexit__(*error)


scripted = ScriptedGateway


def device_of(
    gateway: ScriptedGateway | Gateway, directory: Path, credential: Any = "t", **options: Any
) -> Device:
    """A device of this gateway, with its outbox file in `directory`."""
    options = {"url": gateway.url, "environment": gateway.environment, **options}
    return Device(options.pop("url"), credential, outbox=directory / "box", **options)


def nobody() -> ScriptedGateway:
    """Where no gateway answers."""
    return ScriptedGateway(None)


async def friendly(peer: Peer) -> None:
    """A gateway with which all is well."""
    await peer.greet()
    await peer.serve()


async def told(task: Any) -> BaseException | None:
    """What a task ended with."""
    await within(asyncio.wait({task}))
    return task.exception()


class Record:
    """A script of a gateway that notes what it receives, hello by hello."""

    def __init__(self, **welcome: Any) -> None:
        self.welcome = welcome
        self.heard: list[tuple[dict[str, Any], list[dict[str, Any]]]] = []

    async def __call__(self, peer: Peer) -> None:
        hello = await peer.greet(**self.welcome)
        self.heard.append((hello, []))
        while True:
            frame = await peer.hear()
            if isinstance(frame, dict) and "hello" in frame:
                self.heard.append((frame["hello"], []))
                await peer.resume(frame["hello"])
                continue
            messages = messages_of(frame)
            self.heard[-1][1].extend(messages)
            await peer.say({"ack": messages[-1]["seq"], "credit": 1_000})

    @property
    def runs(self) -> list[tuple[str, list[int]]]:
        """(outbox, seqs) of each hello that was followed by messages."""
        return [
            (hello["outbox"], [each["seq"] for each in messages])
            for hello, messages in self.heard
            if messages
        ]
