"""What can happen to a server process, as coroutines."""

import asyncio
import signal
from collections.abc import Sequence

from loadtest.servers.process import Target, send_signal


async def kill_and_start(server: Target) -> None:
    """Kill -9, and a start at once."""
    server.kill()
    await asyncio.to_thread(server.start)


async def kill_for(server: Target, seconds: float) -> None:
    """Kill -9, and a start after a while."""
    server.kill()
    await asyncio.sleep(seconds)
    await asyncio.to_thread(server.start)


async def pause(pids: Sequence[int], seconds: float) -> None:
    """Stop the processes for a while; those that are gone are left alone."""
    send_signal(pids, signal.SIGSTOP)
    await asyncio.sleep(seconds)
    send_signal(pids, signal.SIGCONT)
