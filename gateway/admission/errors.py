"""Why a connection is not admitted, or a credential is refused.

AdmissionError
 +-- CredentialError   the JWT is missing, malformed, expired, wrongly signed or not for us
 +-- KeySetError       the operator's JWKS cannot be used
 +-- TicketError       the ticket is malformed, forged or of another device
"""


class AdmissionError(Exception):
    """Base of this room's errors."""


class CredentialError(AdmissionError):
    """The credential is refused. `reason` is one of a fixed set, safe as a metric label."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason


class KeySetError(AdmissionError):
    """The JWKS document is broken or holds no usable key."""


class TicketError(AdmissionError):
    """The ticket is worth nothing. `reason` is malformed, key, forged, holder or ahead."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
