"""What happened to devices lately: their last refusals and closes, for people that ask why.

A refusal must stay almost free, so remembering one is an append to a ring of values that exist
already (0.2 us). A dictionary by device would cost ten times that, in cache misses. Nothing is
computed until somebody looks a device up: then the rings are searched, a few milliseconds at most.

- A device whose credential was verified is known by the hash in its identity (`holder`).
- Before that, there is only the token that was shown. It may be forged, so what it claims is read
  at the look-up, marked as a claim, and pushes nothing out of the memory of verified devices.
- A device that knocks too often has a ring of its own, so that it displaces only others like it.
"""

import base64
import binascii
from collections import deque
from itertools import islice
from typing import Final

import msgspec

from gateway.edge.arrivals import Arrivals

REFUSALS_MAX: Final = 50_000
CLOSES_MAX: Final = 20_000
CLAIMS_MAX: Final = 4_096
CLAIM_CHARS_MAX: Final = 1_024
"""A longer token is not kept."""
EVENTS_MAX: Final = 5
"""Refusals, and closes, that are shown of a device."""

Event = tuple[float, str, str, float]
"""When (local time, seconds), error, reason, and when to come back (seconds; 0 if never)."""


class _Claims(msgspec.Struct):
    sub: str
    tenant: str = "default"


class DeviceMemory:
    """The memory of one node."""

    def __init__(self) -> None:
        self.arrivals = Arrivals()
        """Devices on their way in."""
        self._refusals: deque[tuple[bytes, Event]] = deque(maxlen=REFUSALS_MAX)
        self._too_often: deque[tuple[bytes, Event]] = deque(maxlen=CLAIMS_MAX)
        self._closes: deque[tuple[bytes, Event]] = deque(maxlen=CLOSES_MAX)
        self._claims: deque[tuple[str, Event]] = deque(maxlen=CLAIMS_MAX)

    def refused(self, holder: bytes, event: Event) -> None:
        """A device was refused whose credential is verified."""
        self._refusals.append((holder, event))

    def knocked_too_often(self, holder: bytes, event: Event) -> None:
        """It was refused for its number of knocks, which may be any number a second."""
        self._too_often.append((holder, event))

    def closed(self, holder: bytes, event: Event) -> None:
        """A connection of the device has ended; the error is the cause."""
        self._closes.append((holder, event))

    def refused_claim(self, token: str, event: Event) -> None:
        """A knock was refused before its credential was verified."""
        if len(token) <= CLAIM_CHARS_MAX:
            self._claims.append((token, event))

    def refusals(self, holder: bytes) -> list[Event]:
        """The last refusals of a device, the newest first."""
        found = [*_last(self._too_often, holder), *_last(self._refusals, holder)]
        return sorted(found, key=lambda event: event[0], reverse=True)[:EVENTS_MAX]

    def closes(self, holder: bytes) -> list[Event]:
        """The last ends of its connections, the newest first."""
        return _last(self._closes, holder)

    def claims(self, tenant: str, device: str) -> list[Event]:
        """The last refusals of knocks that claimed to be this device, the newest first."""
        events = (
            event for token, event in reversed(self._claims) if _claimed(token) == (tenant, device)
        )
        return list(islice(events, EVENTS_MAX))


def _last(ring: deque[tuple[bytes, Event]], holder: bytes) -> list[Event]:
    return list(islice((event for of, event in reversed(ring) if of == holder), EVENTS_MAX))


def _claimed(token: str) -> tuple[str, str] | None:
    """Tenant and device that a token claims, without any check of its signature."""
    parts = token.split(".")
    if len(parts) != 3:  # noqa: PLR2004  # the parts of a JWS (RFC 7515 section 3.1)
        return None
    try:
        body = base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4))
        claims = msgspec.json.decode(body, type=_Claims)
    except (binascii.Error, ValueError, msgspec.MsgspecError, RecursionError):
        return None
    return claims.tenant, claims.sub
