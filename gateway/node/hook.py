"""A call whose receivers are made after its caller.

A calendar tells the gate of new slots, and the gate needs the calendar. The calendar is given a
`Hook`, and the gate is added to it when it exists. A hook without receivers is complete: calling
it does nothing.
"""

from collections.abc import Callable
from typing import Generic, ParamSpec

P = ParamSpec("P")


class Hook(Generic[P]):
    """Calls every receiver that was added, in that order."""

    def __init__(self) -> None:
        self._receivers: list[Callable[P, None]] = []

    def add(self, receiver: Callable[P, None]) -> None:
        """Call `receiver` too from now on."""
        self._receivers.append(receiver)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> None:
        for receiver in self._receivers:
            receiver(*args, **kwargs)
