"""What a device's sessions and its application exchange: callbacks, commands, answers."""

import inspect
import json
import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from tidegate.errors import CallbackFailed, Misuse, Rejected
from tidegate.tracing import MessageTraces
from tidegate.wire import frames

_log = logging.getLogger("tidegate.device")

_COMMANDS_MAX: Final = 1_000
_ANSWERS_MAX: Final = 1_000
_COMMAND_ID_CHARS_MAX: Final = 64


@dataclass(frozen=True, slots=True)
class Command:
    """A command for this device, its data decoded."""

    id: str
    type: str
    data: Any


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


class Mailbox:
    """Commands that wait for the application, and answers that wait for a session."""

    def __init__(self) -> None:
        self.commands: deque[Command] = deque()
        self._answers: deque[bytes] = deque(maxlen=_ANSWERS_MAX)

    def take_command(self, command: frames.Command) -> None:
        """Keep a command for the application. One that cannot be handed over gets an error
        answer.
        """
        problem = ""
        try:
            data = json.loads(bytes(command.data))
        except (ValueError, RecursionError) as exc:
            problem = f"data cannot be read: {exc}"
        else:
            if len(self.commands) < _COMMANDS_MAX:
                self.commands.append(Command(command.id, command.type, data))
                return
            problem = f"{_COMMANDS_MAX} commands wait already"
        _log.warning("a command was not handed over: %s", problem)
        self.give_answer(command.id, False, msgspec.json.encode({"error": problem[:200]}))

    def give_answer(self, command_id: str, ok: bool, data: bytes) -> None:
        """Keep an answer until a session can send it; beyond a thousand the oldest is lost.

        Raises:
            Rejected: no command can have this id.
        """
        if not isinstance(command_id, str) or len(command_id) > _COMMAND_ID_CHARS_MAX:
            raise Rejected(f"no command has an id of more than {_COMMAND_ID_CHARS_MAX} characters")
        result = frames.Result(command_id, ok, msgspec.Raw(data))
        self._answers.append(frames.encode_named("result", result))

    def take_answers(self) -> list[bytes]:
        """Take the answers that wait."""
        answers = list(self._answers)
        self._answers.clear()
        return answers
