"""How a transport is ended, by the peer and by us, so that the peer can read our last word."""

import asyncio
import operator
from collections.abc import Callable
from typing import Final, Protocol

from gateway.edge.sliced import Sliced

_CLOSE_S: Final = 40e-6
"""About how long the kernel needs to close a socket, which the loop does after the slice."""
_SHARE: Final = 0.15
"""Of the loop's time. An admission costs six times what an end does, so no more devices can be
admitted in the rest of the time than connections end in this share: the ends never keep devices out
of the room that they free. With a quarter, what comes of itself in a cut (closed sockets, messages,
knocks) and the ends took all of the loop's time, and the acks waited."""


class Ending(Protocol):
    """A connection whose peer has ended, or which is lost."""

    def hang_up(self) -> None:
        """It is the turn of this connection to end."""


def endings(
    loop: asyncio.AbstractEventLoop, slice_s: float, between: Callable[[], None] = lambda: None
) -> Sliced[Ending]:
    """Make the queue in which the ends of connections wait for their turn."""
    hang_up = operator.methodcaller("hang_up")
    return Sliced(loop, 2 * slice_s, hang_up, later_s=_CLOSE_S, share=_SHARE, between=between)


def peer_ended(ending: Ending, transport: asyncio.Transport, waiting: Sliced[Ending]) -> bool:
    """The peer has closed its side: close ours in its turn, because thousands may end at once.

    Args:
        ending: the connection.
        transport: of the connection.
        waiting: the queue of those that end.

    Returns:
        Whether the transport stays open until then. TLS knows no half-closed connection.
    """
    if transport.get_extra_info("sslcontext") is not None:
        return False
    waiting.add(ending)
    return True


def end_of_stream(transport: asyncio.Transport, *, peer_may_send: bool) -> bool:
    """Half-close after our last word, and let the peer finish.

    Closing a socket with unread input resets the connection, and the reset can overtake our last
    word. TLS knows no half-closed connection: there, what the peer still sends must be read and
    dropped for a while.

    Returns:
        Whether the caller must do so, and drop the connection afterwards.
    """
    if transport.can_write_eof():
        transport.write_eof()
        return False
    if peer_may_send:
        return True
    transport.close()
    return False
