"""Room for anonymous connections: silent ones, half heads, TLS handshakes.

Each costs a descriptor and proves nothing, so they are counted apart from devices, and their number
is bounded. When there is no room, the one that came first goes: a client that means it shows its
credential within a round trip or two.
"""

from gateway.edge.observer import EdgeObserver
from gateway.edge.ports import Counted


class Anteroom:
    """Anonymous connections in the order in which they came."""

    def __init__(self, *, places: int, observer: EdgeObserver) -> None:
        self._places = places
        self._observer = observer
        self._inside: dict[Counted, None] = {}

    def __len__(self) -> int:
        return len(self._inside)

    def enter(self, connection: Counted) -> None:
        """Take a place; if there is none, the connection that came first loses its own."""
        self._inside[connection] = None
        if len(self._inside) > self._places:
            first = next(iter(self._inside))
            del self._inside[first]
            self._observer.refused("anonymous", "crowded")
            first.abort("crowded")

    def leave(self, connection: Counted) -> None:
        """The connection is identified, or it has gone; nothing if it has no place."""
        self._inside.pop(connection, None)
