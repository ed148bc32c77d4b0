"""How many rules an event has passed: rules that feed each other must end."""

from typing import Final

from gateway.events.event import Event

HOPS_MAX: Final = 8
"""A derived message that would be the eighth of its chain is a dead letter: rules that feed
themselves end here."""
HOPS_HEADER: Final = b"Tidegate-Hops"


def hops_of(event: Event) -> int:
    """How many rules an event has passed."""
    return hops_in(event.headers)


def hops_in(headers: bytes) -> int:
    """How many rules an event with this header block has passed."""
    # Nearly always, and this is asked of each event.
    if HOPS_HEADER not in headers:
        return 0
    text = Event("", headers, b"", 0, 0).header(HOPS_HEADER)
    return int(text) if text.isdecimal() and len(text) < HOPS_MAX else 0
