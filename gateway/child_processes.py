"""What every child process needs: an end with its parent, and an end within a time."""

import asyncio
import contextlib
import ctypes
import signal
import sys
from collections.abc import Callable
from functools import partial
from typing import Final

import structlog

_log = structlog.get_logger(__name__)

_PR_SET_PDEATHSIG: Final = 1
_KILL_TIMEOUT_S: Final = 5.0

_libc = ctypes.CDLL(None) if sys.platform == "linux" else None


def dying_with_parent(number: signal.Signals) -> Callable[[], None] | None:
    """A `preexec_fn`: Linux sends the child this signal if its parent is killed."""
    return None if _libc is None else partial(_libc.prctl, _PR_SET_PDEATHSIG, int(number))


async def end(process: asyncio.subprocess.Process, name: str, within_s: float) -> None:
    """End a child: SIGTERM, and SIGKILL if it has not ended in time.

    Args:
        process: the child; nothing is done if it has ended.
        name: names it in the log.
        within_s: how long it may take before it is killed.
    """
    if process.returncode is not None:
        return
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(signal.SIGTERM)
        # A stopped process handles SIGTERM only when it runs again.
        process.send_signal(signal.SIGCONT)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(within_s):
            await process.wait()
        return
    _log.error("child_killed", name=name, pid=process.pid, after_s=within_s)
    with contextlib.suppress(ProcessLookupError):
        process.kill()
    with contextlib.suppress(TimeoutError):  # stuck in the kernel: a dead disk, for one
        async with asyncio.timeout(_KILL_TIMEOUT_S):
            await process.wait()
