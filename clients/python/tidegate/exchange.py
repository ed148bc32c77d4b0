"""What a device's sessions and its application exchange: callbacks and commands."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tidegate.errors import CallbackFailed, Misuse
from tidegate.tracing import MessageTraces
from tidegate.wire import frames


@dataclass(frozen=True, slots=True)
class Command:
    """A command for this device, its data decoded."""

    id: str
    type: str
    data: Any
    queued: bool = False
    """Whether it waited in the gateway's queue. If not, it is a request, and somebody waits for
    the answer now."""
    trace: str = ""
    """The `traceparent` of the span that sent it, for a span of yours below it; empty if it is not
    traced."""


class Callbacks:
    """The application's callbacks: plain functions, called in the event loop."""

    def __init__(
        self,
        on_ack: Callable[[int], None] | None,
        on_reject: Callable[[frames.Reject], None] | None,
        traces: MessageTraces | None = None,
    ) -> None:
        """
        Args:
            on_ack: see `Device`.
            on_reject: see `Device`.
            traces: follows the messages, beside the application.

        Raises:
            Misuse: a callback is a coroutine function, which nobody would await.
        """
        for name, callback in (("on_ack", on_ack), ("on_reject", on_reject)):
            if inspect.iscoroutinefunction(callback) or inspect.iscoroutinefunction(
                getattr(callback, "__call__", None)  # noqa: B004  # an object may have an async one
            ):
                raise Misuse(f"{name} is a coroutine function; give a plain function")
        self._on_ack = on_ack
        self._on_reject = on_reject
        self.traces = traces

    def acked(self, number: int) -> None:
        """Every message up to `number` is stored.

        Raises:
            CallbackFailed: the callback raised, or returned an awaitable.
        """
        if self.traces is not None:
            self.traces.settled(number)
        if self._on_ack is not None:
            _call("on_ack", self._on_ack, number)

    def rejected(self, reject: frames.Reject) -> None:
        """A message went to the dead letters, or can never be sent.

        Raises:
            CallbackFailed: the callback raised, or returned an awaitable.
        """
        if self.traces is not None:
            self.traces.rejected(reject.seq, reject.error)
        if self._on_reject is not None:
            _call("on_reject", self._on_reject, reject)


def _call(name: str, callback: Callable[[Any], Any], argument: Any) -> None:
    try:
        returned = callback(argument)
    except Exception as exc:  # whatever an application's code raises
        raise CallbackFailed(f"{name} raised {type(exc).__name__}: {exc}") from exc
    if inspect.isawaitable(returned):
        if inspect.iscoroutine(returned):
            returned.close()
        raise CallbackFailed(f"{name} returned an awaitable, which nobody awaits")
