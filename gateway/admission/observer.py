"""Hooks for observers of admission, such as metrics. Times in seconds; labels from fixed sets."""


class AdmissionObserver:
    """Does nothing: override the hooks you need. A hook runs in a knock and returns at once."""

    def parked(self, rank: str) -> None:
        """A knock waits in the handshake: `rank` is priority, ticket or walk_in."""

    def ticket_issued(self, lead_s: float) -> None:
        """A slot was promised, `lead_s` ahead."""

    def ticket_honoured(self, lateness_s: float) -> None:
        """A ticket was shown in its window."""

    def ticket_early(self, early_s: float) -> None:
        """A ticket was shown too early; the device got the same slot again."""

    def ticket_late(self, lateness_s: float) -> None:
        """A ticket was shown after its window."""

    def ticket_invalid(self, reason: str) -> None:
        """A ticket was malformed, of an unknown key, forged, or of another device."""

    def ticket_replayed(self) -> None:
        """A ticket was shown again after it was used."""

    def slot_given_back(self) -> None:
        """A promised slot was not used, and went to a walk-in."""

    def past_horizon(self) -> None:
        """The calendar is full: a device got a time, and no slot."""

    def over_meter(self) -> None:
        """A promise was kept although the meter had no credit."""
