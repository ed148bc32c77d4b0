"""Processes that no test outlives. Needs nothing but Python."""

import contextlib
import signal
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any


def _hear_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@contextlib.contextmanager
def spawned(command: Sequence[str], **more: Any) -> Iterator[subprocess.Popen[str]]:
    """A process that hears SIGINT whoever started the tests, and that no test outlives.

    A shell's `&` has its children ignore SIGINT, and theirs inherit it; `Popen` left to itself
    waits for ever for a process that does not end.
    """
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=_hear_interrupts,  # noqa: PLW1509  # it takes no lock
        **more,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"
