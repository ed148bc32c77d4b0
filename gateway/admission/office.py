"""The ticket office of a node: tickets carry fleet time, and the desk uses local time."""

from collections.abc import Sequence

from msgspec.structs import replace

from gateway.admission.clock import FleetClock
from gateway.admission.errors import TicketError
from gateway.admission.ticket import Ticket, TicketOffice


class NodeTicketOffice(TicketOffice):
    """A `TicketOffice` that takes and returns local time."""

    def __init__(self, secrets: Sequence[bytes], *, clock: FleetClock, ahead_max_s: float) -> None:
        """
        Args:
            secrets: newest first, as of `TicketOffice`.
            clock: converts local time to fleet time.
            ahead_max_s: no slot is promised further ahead. A ticket with a later slot comes from a
                node whose clock was wrong, and must not keep its holder away.
        """
        super().__init__(secrets)
        self._clock = clock
        self._ahead_max_s = ahead_max_s

    def issue(self, slot_at: float, holder: bytes, now: float, priority: bool = False) -> str:
        offset_s = self._clock.offset_s
        return super().issue(slot_at + offset_s, holder, now + offset_s, priority)

    def check(self, text: str, holder: bytes, now: float) -> Ticket:
        offset_s = self._clock.offset_s
        ticket = super().check(text, holder, now + offset_s)
        slot_at = ticket.slot_at - offset_s
        if slot_at - now > self._ahead_max_s:
            raise TicketError("ahead")
        return replace(ticket, slot_at=slot_at)
