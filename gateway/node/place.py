"""What a gateway process is given that runs as a worker under a supervisor."""

import socket
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from gateway.node.board import Board


@dataclass(frozen=True, slots=True)
class WorkerPlace:
    """What a worker has from its supervisor; a process of its own makes each of these itself."""

    number: int
    """Of this worker, from 1."""
    gateway: str
    """Names this run of the supervisor; the same for all its workers."""
    listening: Sequence[socket.socket]
    """Where devices connect; shared by all workers."""
    board: Board
    """Says which worker accepts next."""
    nats_url: str | None
    """Of the embedded nats-server, which the supervisor runs; None for operators' own."""
    ops_socket: Path
    """Where the supervisor asks this worker."""
    write: Callable[[str, str], Awaitable[None]]
    """Has the supervisor write a file of the data directory: its name, and its text.

    Raises OSError if the disk refuses.
    """
    write_soon: Callable[[str, str], None]
    """The same, without an answer."""
    on_listening: Callable[[], None]
    """Called once the worker accepts devices."""
    leaving: Callable[[], int]
    """The other workers that leave together with this one."""
