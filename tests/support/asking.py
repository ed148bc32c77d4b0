"""An operator's requests to devices."""

import asyncio
from typing import Any

import nats.errors

from support.waiting import PATIENCE_S


async def ask_device(operator: Any, payload: bytes, subject: str = "commands.default.veh-1") -> Any:
    """The answer of a device which has just connected.

    Its gateway subscribes in the turn of the welcome. nats-server may read a request before that.
    """
    async with asyncio.timeout(PATIENCE_S):
        while True:
            try:
                return await operator.request(subject, payload, timeout=PATIENCE_S)
            except nats.errors.NoRespondersError:
                await asyncio.sleep(0.005)
