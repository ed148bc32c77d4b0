"""An operator that queues many commands, in whatever state the gateway and NATS are.

It writes to the stream itself, with none of the gateway's code, as the checker reads it.
"""

import asyncio
import contextlib
import json
import random
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

import nats
import nats.errors
import nats.js.errors
from nats.aio.client import Client

_EXPIRING_SHARE: Final = 0.1
_CANCELLED_SHARE: Final = 0.02
_SHORT_S: Final = 4.0
_LONG_S: Final = 3_600.0
_RETRY_S: Final = 0.3
_ANSWER_S: Final = 2.0


class QueueingOperator:
    """Queues commands for random devices. Some expire soon, some are cancelled at once."""

    def __init__(self, url: str, devices: Sequence[str], rng: random.Random) -> None:
        """
        Args:
            url: of NATS.
            devices: of the tenant `default`.
            rng: chooses devices, times and cancels.
        """
        self._url = url
        self._devices = devices
        self._rng = rng
        self._connection: Client | None = None
        self.placed: dict[str, tuple[str, int]] = {}
        """Device and sequence of each command, by its id."""

    async def queue(self, count: int) -> None:
        """Queue so many commands. It goes on while NATS is away."""
        for _ in range(count):
            command_id = f"c-{len(self.placed)}"
            device = self._rng.choice(self._devices)
            short = self._rng.random() < _EXPIRING_SHARE
            self.placed[command_id] = (
                device,
                await self._put(device, command_id, _SHORT_S if short else _LONG_S),
            )
            if self._rng.random() < _CANCELLED_SHARE:
                await self._cancel(device, command_id)

    async def waiting(self) -> int:
        """Entries of the queue."""
        stream = (await self._client()).jetstream(timeout=10)
        info = await stream.stream_info("COMMANDS", subjects_filter="commands.queue.>")
        return sum((info.state.subjects or {}).values())

    async def aclose(self) -> None:
        """Close the connection. The next call makes another one."""
        client, self._connection = self._connection, None
        if client is not None:
            await client.close()

    async def _put(self, device: str, command_id: str, ttl_s: float) -> int:
        expires = datetime.now(UTC) + timedelta(seconds=ttl_s)
        entry = {"id": command_id, "type": "work", "data": 1, "expires": expires.isoformat()}
        headers = {"Nats-Msg-Id": f"default:{device}:{command_id}"}
        subject = f"commands.queue.default.{device}"
        seq = await self._publish(subject, json.dumps(entry).encode(), headers)
        assert seq is not None
        await self._say(device, command_id, {"status": "queued"}, after=0)
        return seq

    async def _cancel(self, device: str, command_id: str) -> None:
        last = await self._last(f"commands.status.default.{device}.{command_id}")
        if last is not None and last[1] == "queued":
            fact = {"status": "failed", "reason": "cancelled"}
            await self._say(device, command_id, fact, after=last[0])

    async def _say(self, device: str, command_id: str, fact: dict[str, str], *, after: int) -> None:
        """Store a fact, unless another one than that at `after` stands there."""
        headers = {
            "Nats-Msg-Id": f"default:{device}:{command_id}:{fact['status']}:operator",
            "Nats-Expected-Last-Subject-Sequence": str(after),
        }
        stamped = {**fact, "time": datetime.now(UTC).isoformat()}
        subject = f"commands.status.default.{device}.{command_id}"
        await self._publish(subject, json.dumps(stamped).encode(), headers)

    async def _last(self, subject: str) -> tuple[int, str] | None:
        """Sequence and status of the last fact on a subject."""
        while True:
            try:
                stream = (await self._client()).jetstream(timeout=_ANSWER_S)
                found = await stream.get_last_msg("COMMANDS", subject)
            except nats.js.errors.NotFoundError:
                return None
            except (nats.errors.Error, OSError, TimeoutError):
                await self._try_later()
            else:
                return found.seq or 0, json.loads(found.data or b"{}")["status"]

    async def _publish(self, subject: str, data: bytes, headers: dict[str, str]) -> int | None:
        """The sequence of what is stored; None if another fact stands there already."""
        while True:
            try:
                stream = (await self._client()).jetstream(timeout=_ANSWER_S)
                ack = await stream.publish(subject, data, headers=headers)
                return int(ack.seq)
            except nats.js.errors.BadRequestError:
                return None  # the last fact is another one
            except (nats.errors.Error, OSError, TimeoutError):
                await self._try_later()

    async def _try_later(self) -> None:
        with contextlib.suppress(nats.errors.Error, OSError, TimeoutError):
            await self.aclose()
        await asyncio.sleep(_RETRY_S)

    async def _client(self) -> Client:
        if self._connection is None:
            self._connection = await nats.connect(
                self._url, allow_reconnect=False, error_cb=_expected
            )
        return self._connection


async def _expected(error: Exception) -> None:
    """NATS is killed on purpose; nats-py would print a traceback each time."""
    del error
