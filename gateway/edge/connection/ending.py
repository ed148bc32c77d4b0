"""How a transport is ended, by the peer and by us, so that the peer can read our last word."""

import asyncio
from collections.abc import Callable

from gateway.edge.sliced import Sliced


def peer_ended(
    transport: asyncio.Transport,
    endings: Sliced[Callable[[], object]],
    hang_up: Callable[[], object],
) -> bool:
    """The peer has closed its side: close ours in its turn, because thousands may end at once.

    Args:
        transport: of the connection.
        endings: the queue of those that end.
        hang_up: closes the transport.

    Returns:
        Whether the transport stays open until then. TLS knows no half-closed connection.
    """
    if transport.get_extra_info("sslcontext") is not None:
        return False
    endings.add(hang_up)
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
