"""For the tests of applications: a gateway in memory, a fake clock, randomness from a seed.

    from tidegate import Device
    from tidegate.testing import Gateway

    async with Gateway() as gateway:
        async with Device(
            gateway.url, gateway.credential, outbox=path, environment=gateway.environment
        ) as device:
            ...

No socket, no thread and no real waiting is involved. See the README of the client.
"""

from tidegate.testing import refusals
from tidegate.testing.clock import FakeClock
from tidegate.testing.gateway import CommandResult, Gateway, QueuedCommand, unsigned_jwt
from tidegate.testing.inline import InlineExecutor
from tidegate.testing.listener import Knock, Listener, Play
from tidegate.testing.peer import Peer
from tidegate.testing.refusals import Answer
from tidegate.testing.stream import RejectedMessage, StoredMessage

__all__ = [
    "Answer",
    "CommandResult",
    "FakeClock",
    "Gateway",
    "InlineExecutor",
    "Knock",
    "Listener",
    "Peer",
    "Play",
    "QueuedCommand",
    "RejectedMessage",
    "StoredMessage",
    "refusals",
    "unsigned_jwt",
]
