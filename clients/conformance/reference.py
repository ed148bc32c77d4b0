"""The adapter of the reference client: `python -m clients.conformance.reference`."""

import asyncio
import json
import os
import sys
from typing import Any, Final

from tidegate import BackoffSettings, Device, DeviceError, Reject

_CAN: Final = (
    "header",
    "status",
    "durable",
    "outboxes",
    "renew",
    "two_connections",
    "commands",
    "state",
    "receipts",
)


def _say(event: str, **more: Any) -> None:
    sys.stdout.write(json.dumps({"event": event, **more}) + "\n")
    sys.stdout.flush()


class _Wallet:
    """Asks for a credential and waits for the line that brings it."""

    def __init__(self) -> None:
        self.given: asyncio.Queue[str] = asyncio.Queue()

    async def provide(self, _refused: str | None) -> str:
        _say("credential")
        return await self.given.get()


async def _lines() -> asyncio.StreamReader:
    reader = asyncio.StreamReader(limit=1_048_576)
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    return reader


async def _echo(device: Device) -> None:
    async for command in device.commands():
        if command.queued:
            _say("command", id=command.id)
        if command.type == "hang":
            continue
        await device.answer(command.id, ok=True, data=command.data)


async def _tell_states(device: Device) -> None:
    async for state in device.states():
        _say("state", version=state.version, desired=state.desired)


async def _watch(device: Device) -> None:
    """Report that the device has ended by itself."""
    while device.failure is None:  # noqa: ASYNC110  # `failure` is the public way to see it
        await asyncio.sleep(0.02)
    _say("ended", error=type(device.failure).__name__)


async def main() -> None:
    scale = float(os.environ["TIDEGATE_BACKOFF_SCALE"])
    whole = BackoffSettings()
    backoff = BackoffSettings(
        first_retry_ms=int(whole.first_retry_ms * scale),
        base_ms=int(whole.base_ms * scale),
        cap_ms=int(whole.cap_ms * scale),
        stable_ms=int(whole.stable_ms * scale),
    )
    wallet = _Wallet()

    def on_reject(reject: Reject) -> None:
        _say("rejected", error=reject.error)

    lines = await _lines()
    _say("ready", can=list(_CAN))
    device = Device(
        os.environ["TIDEGATE_URL"],
        wallet.provide,
        outbox=os.environ["TIDEGATE_OUTBOX"],
        on_reject=on_reject,
        backoff=backoff,
        state=True,
    )
    async with device:
        parts = (_echo(device), _tell_states(device), _watch(device))
        tasks = [asyncio.create_task(part) for part in parts]
        async for line in lines:
            order = json.loads(line)
            if order["do"] == "send":
                await device.send(order["type"], order["data"])
                _say("queued")
            elif order["do"] == "credential":
                wallet.given.put_nowait(order["token"])
            elif order["do"] == "stop":
                break
        for task in tasks:
            task.cancel()
        for outcome in await asyncio.gather(*tasks, return_exceptions=True):
            if not isinstance(outcome, (asyncio.CancelledError, DeviceError, type(None))):
                raise outcome


if __name__ == "__main__":
    asyncio.run(main())
