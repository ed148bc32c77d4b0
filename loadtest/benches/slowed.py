"""Processes that run for a share of the time only: a small machine in place of this one."""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Final

_PERIOD_S: Final = 0.02


@contextlib.contextmanager
def slowed(pids: Sequence[int], share: float) -> Iterator[None]:
    """Let these processes run for that share of each 20 ms, and stop them for the rest.

    A generator in Python cannot offer more knocks than one worker refuses, if both have a core. So
    workers are compared that have less than a core each, which leaves the generator the rest.
    """
    ended = threading.Event()
    turns = [
        threading.Thread(target=_stop_and_go, args=(pid, share, ended), daemon=True) for pid in pids
    ]
    for turn in turns:
        turn.start()
    try:
        yield
    finally:
        ended.set()
        for turn in turns:
            turn.join()


def _stop_and_go(pid: int, share: float, ended: threading.Event) -> None:
    with contextlib.suppress(ProcessLookupError):
        while not ended.is_set():
            os.kill(pid, signal.SIGSTOP)
            time.sleep(_PERIOD_S * (1 - share))
            os.kill(pid, signal.SIGCONT)
            time.sleep(_PERIOD_S * share)
