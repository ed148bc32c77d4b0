"""When a worker that lives but does not answer is taken for one that hangs. Pure.

Its process is asked once a second and has some seconds for each answer. Questions count, and not
the time, so a machine that was suspended, or a supervisor that stood still, ends no worker.
"""

from typing import Final

UNANSWERED_MAX: Final = 8
"""Questions in a row without an answer. Each waits for 3 s, so this is half a minute: longer than
an event loop stalls when thousands of devices are cut at once on a busy machine."""
START_S: Final = 120.0
"""A process must answer devices so soon after its start."""


class Silence:
    """Of the process of one worker."""

    def __init__(self, started_at: float) -> None:
        """
        Args:
            started_at: monotonic seconds.
        """
        self._started_at = started_at
        self._unanswered = 0

    def answered(self) -> None:
        """The process has answered a question."""
        self._unanswered = 0

    def unanswered(self) -> str:
        """A question got no answer in time.

        Returns:
            Why the process must be ended; empty if it need not be.
        """
        self._unanswered += 1
        if self._unanswered < UNANSWERED_MAX:
            return ""
        return f"it hung: it left {self._unanswered} questions in a row without an answer"

    def starting(self, now: float) -> str:
        """The process is not up yet.

        Args:
            now: monotonic seconds.

        Returns:
            As `unanswered`.
        """
        if now - self._started_at < START_S:
            return ""
        return f"it hung: it was not up {START_S:.0f} s after its start"
