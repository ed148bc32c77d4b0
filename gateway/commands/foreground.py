"""Runs a command in the foreground: one SIGINT or SIGTERM ends it, even while it is blocked.

A signal cancels the work. If the work has not ended after a grace of 1.5 s (a library swallows the
cancellation, a pipe is not read, a name server does not answer), the process ends anyway.
"""

import asyncio
import os
import signal
import sys
from collections.abc import Coroutine
from types import FrameType
from typing import Any, Final, TypeVar

_T = TypeVar("_T")

GRACE_S: Final = 1.5
_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


def run(work: Coroutine[Any, Any, _T]) -> _T:
    """Run `work` to its end.

    Raises:
        SystemExit: with 128 + n, as of a shell, if signal n came first.
        Exception: whatever `work` raises.
    """
    came: list[int] = []

    async def supervised() -> _T:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None

        # Not `loop.add_signal_handler`: its handler does not run while a write to a pipe blocks.
        def interrupt(number: int, _frame: FrameType | None) -> None:
            came.append(number)
            signal.signal(signal.SIGALRM, end)
            signal.setitimer(signal.ITIMER_REAL, GRACE_S)
            loop.call_soon_threadsafe(task.cancel)

        for number in _SIGNALS:
            signal.signal(number, interrupt)
        return await work

    def end(_number: int, _frame: FrameType | None) -> None:
        os._exit(128 + came[0])

    before = {number: signal.getsignal(number) for number in (*_SIGNALS, signal.SIGALRM)}
    try:
        return asyncio.run(supervised())
    except asyncio.CancelledError:
        if came:
            sys.exit(128 + came[0])
        raise
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in before.items():
            signal.signal(number, handler)
