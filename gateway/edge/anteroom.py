"""Room for connections of which nothing is known yet: silent ones, half heads, TLS handshakes.

They cost a descriptor each and prove nothing, so they are counted apart from devices, and their
number is bounded. When there is no room, the one that came first goes: a client that means it says
who it is within a round trip or two.
"""

from typing import Protocol

from gateway.edge.observer import EdgeObserver


class Guest(Protocol):
    """A connection without an identity."""

    def abort(self, cause: str) -> None:
        """Drop the connection at once."""


class Anteroom:
    """Guests in the order in which they came."""

    def __init__(self, *, places: int, observer: EdgeObserver) -> None:
        self._places = places
        self._observer = observer
        self._guests: dict[Guest, None] = {}

    def __len__(self) -> int:
        return len(self._guests)

    def enter(self, guest: Guest) -> None:
        """Take a place; the first guest loses its own if there is none."""
        self._guests[guest] = None
        if len(self._guests) > self._places:
            first = next(iter(self._guests))
            del self._guests[first]
            self._observer.refused("anonymous", "crowded")
            first.abort("crowded")

    def leave(self, guest: Guest) -> None:
        """Its identity is known, or it has gone; nothing if it has no place."""
        self._guests.pop(guest, None)
