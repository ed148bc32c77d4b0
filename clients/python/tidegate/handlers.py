"""The application's handlers of commands: which one answers what, and what its end means."""

import asyncio
import inspect
import json
import logging
from collections.abc import AsyncIterator, Callable
from typing import Any, Final

from tidegate.board import Board
from tidegate.command_log import Outcome
from tidegate.errors import CommandFailed, Misuse, NotOpen, Rejected
from tidegate.exchange import Command
from tidegate.mailbox import Mailbox
from tidegate.wire.grammar import is_message_type

_log = logging.getLogger("tidegate.device")

Handler = Callable[[Command], Any]
"""Takes a command and returns the data of its result, or an awaitable of it."""

NOT_UNDERSTOOD: Final = Outcome(False, b'{"error":"not_understood"}')


class Handlers:
    """Handlers by type. They run one after the other, in the order of the commands."""

    def __init__(self, encode: Callable[[Any], bytes]) -> None:
        """
        Args:
            encode: encodes the data of a result, or raises `Rejected`.
        """
        self._encode = encode
        self._iterated = False
        """Whether the application iterates over the commands for which there is no handler."""
        self._handlers: dict[str, Handler] = {}
        self._registered = asyncio.Event()

    def add(self, command_type: str, handler: Handler) -> None:
        """Answer commands of this type with `handler`.

        Raises:
            Misuse: it is no type, or it has a handler.
        """
        if not isinstance(command_type, str) or not is_message_type(command_type):
            raise Misuse(f"type {command_type!r} is not one to eight tokens joined by dots")
        if not callable(handler):
            raise Misuse(f"the handler of {command_type} cannot be called")
        if command_type in self._handlers:
            raise Misuse(f"{command_type} has a handler already")
        self._handlers[command_type] = handler
        self._registered.set()

    def others(self, opened: Callable[[], Mailbox], board: Board) -> AsyncIterator[Command]:
        """The commands for which there is no handler. `opened` raises if the device is not open."""
        self._iterated = True
        return self._others(opened, board)

    async def _others(self, opened: Callable[[], Mailbox], board: Board) -> AsyncIterator[Command]:
        mailbox = opened()
        while True:
            try:
                await board.until(lambda: self._leaves(mailbox))
            except NotOpen:
                return
            command = mailbox.commands[0]
            if await mailbox.take(command):
                yield command

    def _leaves(self, mailbox: Mailbox) -> bool:
        """Whether the first command that waits is one for the iterator."""
        return bool(mailbox.commands) and mailbox.commands[0].type not in self._handlers

    async def run(self, mailbox: Mailbox, board: Board) -> None:
        """Answer commands, until cancelled. Without any handler, leave all of them."""
        await self._registered.wait()
        while True:
            await board.until(lambda: self._has_work(mailbox))
            command = mailbox.commands[0]
            handler = self._handlers.get(command.type)
            if not await mailbox.take(command, give=handler is not None):
                continue
            outcome = NOT_UNDERSTOOD
            if handler is not None:
                outcome = await self._outcome_of(handler, command)
            else:
                _log.warning("a command of type %.64r has no handler", command.type)
            await mailbox.answer(command.id, outcome)

    def _has_work(self, mailbox: Mailbox) -> bool:
        return bool(mailbox.commands) and not (self._iterated and self._leaves(mailbox))

    async def _outcome_of(self, handler: Handler, command: Command) -> Outcome:
        try:
            returned = handler(command)
            if inspect.isawaitable(returned):
                returned = await returned
        except CommandFailed as exc:
            return self._failed(exc.error, exc.detail)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise  # the device ends; after a restart the outcome is unknown
            return self._failed("failed", "CancelledError")
        except Exception as exc:  # noqa: BLE001  # an application's code; the session goes on
            _log.exception("the handler of %s failed", command.type)
            return self._failed("failed", type(exc).__name__)
        try:
            return Outcome(True, self._encode(returned))
        except Rejected as exc:
            _log.warning("the handler of %s returned what cannot be sent: %s", command.type, exc)
            return self._failed("result", str(exc))

    def _failed(self, error: str, detail: Any) -> Outcome:
        document = {"error": error} if detail is None else {"error": error, "detail": detail}
        try:
            return Outcome(False, self._encode(document))
        except Rejected as exc:
            _log.warning("the detail of a failure cannot be sent: %s", exc)
            return Outcome(False, json.dumps({"error": str(error)[:200]}).encode())
