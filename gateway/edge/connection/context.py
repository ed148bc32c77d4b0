"""What all connections of a listener share, and the bounds of each."""

import asyncio
import operator
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from websockets.extensions.permessage_deflate import ServerPerMessageDeflateFactory

from gateway.edge.connection.side_traffic import SideBudget
from gateway.edge.observer import EdgeObserver
from gateway.edge.ports import Gate, MakeHandler
from gateway.edge.sliced import Sliced
from gateway.edge.wheel import TimingWheel

_CLOSE_S: Final = 40e-6
"""About how long the kernel needs to close a socket, which the loop does after the slice."""
_ENDINGS_SHARE: Final = 0.15
"""Of the loop's time. About 1,800 connections a second end so. No more devices a second can be
admitted in the rest of the time, since an admission costs six times what an end does: so the ends
never keep devices out of the room that they free. With a quarter, what comes of itself in a cut
(closed sockets, messages, knocks) and the ends took all of the loop's time, and the acks waited."""


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """Bounds of one connection. Sizes in bytes, times in seconds.

    The defaults are those of `config/gateway.toml`.
    """

    head_bytes_max: int = 8_192
    head_timeout_s: float = 5.0
    frame_bytes_max: int = 262_144
    fragments_max: int = 64
    write_buffer_bytes_max: int = 262_144
    slow_reader_timeout_s: float = 10.0
    close_timeout_s: float = 5.0
    tls_linger_s: float = 1.0
    """How long a TLS connection is read after our last word if its peer may still be sending."""
    keepalive_interval_s: float = 30.0
    keepalive_timeout_s: float = 20.0
    side: SideBudget = field(default_factory=SideBudget)


@dataclass(frozen=True, slots=True)
class ConnectionContext:
    """What all connections of a listener share."""

    gate: Gate
    make_handler: MakeHandler
    limits: ConnectionLimits
    wheel: TimingWheel
    observer: EdgeObserver
    rng: random.Random
    loop: asyncio.AbstractEventLoop
    endings: Sliced[Callable[[], object]]
    """Closes the transports whose peers have closed, and ends the sessions of closed ones."""
    path: str | None = None
    """The only path that is served; None for any."""
    subprotocols: Sequence[str] | None = None
    extensions: Sequence[ServerPerMessageDeflateFactory] | None = None


def endings(loop: asyncio.AbstractEventLoop, slice_s: float) -> Sliced[Callable[[], object]]:
    """Make the queue in which the ends of connections wait for their turn."""
    return Sliced(loop, 2 * slice_s, operator.call, later_s=_CLOSE_S, share=_ENDINGS_SHARE)
