"""Sums up lines of log that repeat: 10,000 devices must not write 10,000 lines a second. Pure.

The first lines of an event with one cause are written as they are, `FIRST` in a second. The others
of that second are counted, and one line says how many there were. So the log names each event and
each cause, also of errors, and how often it came; only the details of the repeats are left out.
"""

import threading
from collections.abc import Callable
from typing import Final, NamedTuple

FIRST: Final = 5
"""Lines of an event with one cause that are written in a window."""
WINDOW_S: Final = 1.0
CAUSES_MAX: Final = 200
"""Causes that are told apart in a window. Beyond, the lines of an event count as one cause: a cause
may hold what a device has sent.
"""
OTHER: Final = "other"


class Kind(NamedTuple):
    """What lines must have in common to be summed up."""

    event: str
    level: str
    cause: str


class Summary(NamedTuple):
    """Lines that were not written."""

    kind: Kind
    lines: int
    seconds: float
    """From the first line of this kind to now."""


class _Window:
    __slots__ = ("began", "left_out", "written")

    def __init__(self, began: float) -> None:
        self.began = began
        self.written = 0
        self.left_out = 0


class Summing:
    """Decides which lines are written. May be used from any thread."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """
        Args:
            clock: monotonic seconds.
        """
        self._clock = clock
        self._windows: dict[Kind, _Window] = {}
        self._lock = threading.Lock()

    def take(self, kind: Kind) -> bool:
        """Whether to write this line. Call `due` first: a window that has passed is summed up."""
        with self._lock:
            window = self._windows.get(kind)
            if window is None:
                window = self._opened(kind)
            if window.written < FIRST:
                window.written += 1
                return True
            window.left_out += 1
            return False

    def _opened(self, kind: Kind) -> _Window:
        if len(self._windows) >= CAUSES_MAX:
            kind = kind._replace(cause=OTHER)
        return self._windows.setdefault(kind, _Window(self._clock()))

    def due(self, *, all_of_them: bool = False) -> list[Summary]:
        """What is to be said of windows that have passed, or of all. Each is said once."""
        if not self._windows:
            return []
        with self._lock:
            now = self._clock()
            passed = [
                (kind, window)
                for kind, window in self._windows.items()
                if all_of_them or now - window.began >= WINDOW_S
            ]
            for kind, _window in passed:
                del self._windows[kind]
        return [
            Summary(kind, window.left_out, now - window.began)
            for kind, window in passed
            if window.left_out
        ]
