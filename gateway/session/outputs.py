"""What a session's state machine tells its shell to do, as values."""

from dataclasses import dataclass

from gateway.session.errors import SessionError


@dataclass(frozen=True, slots=True)
class Send:
    """Send this text message."""

    frame: bytes


@dataclass(frozen=True, slots=True)
class StopReading:
    """Read nothing more from the device."""


@dataclass(frozen=True, slots=True)
class Wake:
    """Call `deadline_passed` after so many seconds, instead of at the moment set before."""

    after_s: float


@dataclass(frozen=True, slots=True)
class WatchExpiry:
    """Call `deadline_passed` when the credential expires."""


@dataclass(frozen=True, slots=True)
class Close:
    """Close the connection as `goaway` announced; `reason` goes into the close reason."""

    reason: str


@dataclass(frozen=True, slots=True)
class Fail:
    """Close the connection with the offence's code and reason."""

    offence: SessionError


@dataclass(frozen=True, slots=True)
class Forget:
    """The session is over and owes nothing: take it out of the fleet."""


Output = Send | StopReading | Wake | WatchExpiry | Close | Fail | Forget
Outputs = tuple[Output, ...]
