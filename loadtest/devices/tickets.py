"""What a benchmark reads in a ticket, which a device does not read."""

from base64 import urlsafe_b64decode
from time import time
from typing import Final

_WINDOW_S: Final = 10.0
"""How long a gateway honours a ticket after its slot, unless `admission.window_ms` is set."""


def late_of(ticket: str | None) -> float | None:
    """Seconds since the slot of a ticket; None without one.

    The slot in the ticket counts, because the answer with the ticket may have been late itself.
    Fleet time is the wall clock of this machine, which is that of the gateway.
    """
    if ticket is None:
        return None
    return time() - int.from_bytes(urlsafe_b64decode(ticket + "==")[2:8], "big") / 1000


def is_dishonoured(ticket: str | None, reason: str) -> bool:
    """Whether a refusal breaks the promise of the ticket that the device showed.

    Call it when the answer is there: a ticket that is in its window now was so when the gateway
    looked at the clock. A ticket that came after its window promises nothing any more.

    Args:
        ticket: that was shown, if there was one.
        reason: of the refusal.
    """
    late_s = late_of(ticket)
    return reason == "rate" and late_s is not None and late_s <= _WINDOW_S
