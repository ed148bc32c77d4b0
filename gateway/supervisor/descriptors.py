"""Whether this machine has file descriptors for so many workers."""

from pathlib import Path
from typing import Final

from gateway.edge.listening import descriptors
from gateway.settings import Server
from gateway.supervisor.errors import TooManyWorkers

_OF_A_WORKER: Final = 16
"""Of the supervisor for each: the socket pair, what watches the process, questions to it."""
_SYSTEM: Final = Path("/proc/sys/fs/file-nr")
"""Allocated, free and most descriptors of the machine."""


def check_descriptors(server: Server, workers: int, system: Path = _SYSTEM) -> None:
    """
    Args:
        server: the settings of what each worker holds.
        workers: how many there are.
        system: says what the machine has.

    Raises:
        TooManyWorkers: the supervisor, or all workers together, would have too few.
    """
    own = workers * _OF_A_WORKER + descriptors.RESERVED
    allowed = descriptors.raise_limit(own)
    if allowed < own:
        raise TooManyWorkers(
            f"server.workers is {workers}: their supervisor needs {own} file descriptors and may"
            f" have {allowed}; raise ulimit -Hn (LimitNOFILE= of systemd), or have fewer workers"
        )
    wanted = workers * descriptors.needed(server.connections_max, server.anonymous_max)
    try:
        most = int(system.read_text().split()[2])
    except (OSError, ValueError, IndexError):  # no Linux
        return
    if most < wanted:
        raise TooManyWorkers(
            f"server.workers is {workers}: together they need {wanted} file descriptors and the"
            f" machine has {most} (fs.file-max); have fewer workers, or set less in [server]"
        )
