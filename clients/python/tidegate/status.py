"""The state of a device's connection, for the application, and warnings for the log."""

import logging
from dataclasses import dataclass, field

from tidegate.answers import Refusal

_log = logging.getLogger("tidegate.device")

_WARN_AFTER: int = 3


@dataclass(slots=True)
class KnockRecord:
    """The attempts to connect. Lateness is in milliseconds after the time that a gateway named."""

    knocks: int = 0
    refusals: int = 0
    lateness_ms: float = 0.0
    """Of the last attempt that had a time."""
    lateness_ms_max: float = 0.0


@dataclass(slots=True)
class Status:
    """The last failure, and how many there were in a row."""

    knocks: KnockRecord = field(default_factory=KnockRecord)
    last_error: str | None = None
    last_refusal: Refusal | None = None
    rejected: int = 0
    """Messages given up because the gateway can never take them."""
    _failures: int = 0
    _warn_at: int = _WARN_AFTER
    _warned: bool = False

    def trouble(self, what: str, *, failed: bool = True) -> None:
        """An attempt failed, or a session ended.

        Warns at the third failure in a row, the sixth, the twelfth and so on.
        """
        self.last_error = what
        self._failures += failed
        if failed and self._failures >= self._warn_at:
            self._warn_at, self._warned = self._failures * 2, True
            _log.warning("not connected after %d attempts: %s", self._failures, what)
        else:
            _log.info("%s", what)

    def connected(self) -> None:
        """A session is established. It may break again."""
        if self._warned:
            _log.warning("connected again after %d failed attempts", self._failures)
            self._warned = False

    def calm(self) -> None:
        """A session was stable: forget the failures."""
        self._failures, self._warn_at = 0, _WARN_AFTER
