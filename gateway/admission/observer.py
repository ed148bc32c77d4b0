"""Hooks for whoever watches admission (metrics). Times in seconds; labels from fixed sets."""


class AdmissionObserver:
    """Does nothing: override what you count. Called while a knock is decided; return at once."""

    def parked(self, rank: str) -> None:
        """A knock waits in the handshake: `rank` is priority, ticket or walk_in."""

    def ticket_issued(self, lead_s: float) -> None:
        """A slot was promised, `lead_s` ahead."""

    def ticket_honoured(self, lateness_s: float) -> None:
        """A ticket was shown in its window."""

    def ticket_early(self, early_s: float) -> None:
        """It was shown too early: the same slot again."""

    def ticket_late(self, lateness_s: float) -> None:
        """It was shown after its window."""

    def ticket_invalid(self, reason: str) -> None:
        """It was malformed, of an unknown key, forged, or somebody else's."""

    def ticket_replayed(self) -> None:
        """It had been used."""

    def slot_given_back(self) -> None:
        """A slot that nobody claimed went to a walk-in."""

    def past_horizon(self) -> None:
        """The calendar is full; a time was given, no slot."""

    def over_meter(self) -> None:
        """A promise was kept although the meter had no credit."""
