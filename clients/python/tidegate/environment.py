"""What a device takes from outside the process: time, randomness, the network, a thread."""

import random
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, field

from tidegate.clock import Clock
from tidegate.connection import Connect


def one_thread() -> Executor:
    """A thread for an outbox."""
    return ThreadPoolExecutor(1, thread_name_prefix="tidegate-outbox")


@dataclass(frozen=True, slots=True)
class Environment:
    """The surroundings of a device. `tidegate.testing` has surroundings without any waiting."""

    clock: Clock = field(default_factory=Clock)
    rng: random.Random = field(default_factory=random.Random)
    """The source of jitter. Outbox ids are not taken from it: they must be unique, see
    `PROTOCOL.md`, and a seed would repeat them."""
    connect: Connect | None = None
    """Opens connections; None is TCP and TLS."""
    executor: Callable[[], Executor] = one_thread
    """Makes what runs the outbox's file access, one job at a time and in order."""
