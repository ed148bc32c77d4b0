"""What all connections of a listener share, and the bounds of each."""

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass, field

from websockets.extensions.permessage_deflate import ServerPerMessageDeflateFactory

from gateway.edge.connection.ending import Ending
from gateway.edge.connection.side_traffic import SideBudget
from gateway.edge.observer import EdgeObserver
from gateway.edge.opening.known_heads import KnownHeads
from gateway.edge.ports import Gate, MakeHandler
from gateway.edge.sliced import Sliced
from gateway.edge.wheel import TimingWheel


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
    endings: Sliced[Ending]
    """Closes the transports whose peers have closed, and ends the sessions of closed ones."""
    path: str | None = None
    """The only path that is served; None for any."""
    subprotocols: Sequence[str] | None = None
    extensions: Sequence[ServerPerMessageDeflateFactory] | None = None
    known_heads: KnownHeads = field(default_factory=KnownHeads)
    """Of handshakes for this path with these subprotocols."""
