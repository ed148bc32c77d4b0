"""The short way of `tidegate command DEVICE TYPE JSON`: a line that asks one device, and no more.

It takes a tenth of the time that Typer, the settings and nats-py take to be imported. It takes only
what it can read without any doubt: no option but those below, no settings from a file or from the
environment, no trace of the caller, a NATS server without TLS. For all else, and for whatever is
wrong before the request is sent, `run` returns None and has sent nothing: then `command.py` does
it, or says what is wrong.
"""

import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Final, NamedTuple, NoReturn

from gateway.commands.outcomes import CLIENT_NAME, TRACE_VARIABLE, WAIT, print_line, status_of
from gateway.commands.values import check_json, seconds_in
from gateway.stream.errors import ConnectError, NotAnswered, Unreachable
from gateway.stream.link.one_request import NoResponders, RequestConnection
from gateway.stream.queue.requests import (
    NOT_THERE,
    Outcome,
    read_outcome,
    request_body,
    request_subject,
    silence,
)
from gateway.stream.server.roles import Role, url_file
from gateway.telemetry.hiding import hide
from tidegate.wire.grammar import is_message_type, is_token

_COMMAND: Final = "command"
_NOT_FOR_IT: Final = ("TIDEGATE_", TRACE_VARIABLE)
"""Variables which set something that it does not know: how these names begin."""
DATA_DIR: Final = ".tidegate"
"""As in the settings, whose models take long to import."""
_OPTIONS: Final = {
    "--data-dir": DATA_DIR,
    "--nats-url": "",
    "--tenant": "default",
    "--wait": WAIT,
}
"""The options that it reads, and their values if they are not given."""
_POSITIONAL: Final = (2, 3)
_PATIENCE_S: Final = 1.0
"""For a server that does not answer. `command.py` then waits for it, and says why in the end."""


class _Ask(NamedTuple):
    """What the command line asks for."""

    key: tuple[str, str]
    type: str
    data: bytes
    wait_s: int
    url: str


def run(arguments: Sequence[str]) -> int | None:
    """Ask the device, print its answer, and return the exit status.

    Args:
        arguments: of the command line, without the program.

    Returns:
        None if the line is not for the short way. Then nothing was sent or printed.
    """
    if arguments[:1] != [_COMMAND]:
        return None
    try:
        ask = _read(arguments[1:])
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, _end)
        connection = RequestConnection(ask.url, name=CLIENT_NAME, timeout_s=_PATIENCE_S)
    except (ValueError, RecursionError, OSError, ConnectError, Unreachable):
        return None
    with connection:
        body = request_body(ask.type, ask.data)
        return _answer(connection, ask, body) if connection.takes(body) else None


class _Doubt(ValueError):
    """The line is not for the short way."""


def _read(arguments: Sequence[str]) -> _Ask:
    """
    Raises:
        _Doubt: it is not for the short way.
        ValueError: the data is no JSON.
        RecursionError: the data nests too deep.
        OSError: no gateway has left its address there.
    """
    if any(name.startswith(_NOT_FOR_IT) for name in os.environ):
        raise _Doubt
    positional, options = _split(arguments)
    device, message_type, data = (*positional, "null")[:3]
    wait_s = seconds_in(options["--wait"])
    tokens = is_token(device) and is_token(options["--tenant"])
    if not tokens or not is_message_type(message_type) or not wait_s:
        raise _Doubt
    check_json(data)
    url = options["--nats-url"]
    if not url:
        url = url_file(Path(options["--data-dir"]), Role.OPERATORS).read_text().strip()
    return _Ask((options["--tenant"], device), message_type, data.encode(), wait_s, url)


def _split(arguments: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """The positional arguments and the options of a line.

    Raises:
        _Doubt: another option, one given twice, one without a value, or too many arguments.
    """
    positional: list[str] = []
    given: dict[str, str] = {}
    rest = iter(arguments)
    for argument in rest:
        if not argument.startswith("-"):
            positional.append(argument)
            continue
        name, joined, value = argument.partition("=")
        if name not in _OPTIONS or name in given:
            raise _Doubt
        given[name] = value if joined else next(rest, "")
        if not given[name] or given[name].startswith("-"):
            raise _Doubt
    if len(positional) not in _POSITIONAL:
        raise _Doubt
    return positional, _OPTIONS | given


def _answer(connection: RequestConnection, ask: _Ask, body: bytes) -> int:
    try:
        told = _request(connection, ask, body)
    except (NotAnswered, OSError) as exc:
        sys.stderr.write(f"tidegate: NATS: {hide(str(exc) or type(exc).__name__)}\n")
        return 1
    print_line(outcome=told.outcome, id=told.id, data=told.data, detail=told.detail)
    return status_of(told.outcome)


def _request(connection: RequestConnection, ask: _Ask, body: bytes) -> Outcome:
    subject, prefix = request_subject(ask.key), Role.OPERATORS.inbox_prefix
    try:
        answer = connection.request(subject, body, inbox_prefix=prefix, timeout_s=ask.wait_s)
    except NoResponders:
        return NOT_THERE
    except TimeoutError:
        return silence(ask.wait_s)
    return read_outcome(answer)


def _end(number: int, _frame: FrameType | None) -> NoReturn:
    """Of SIGINT and SIGTERM: end as a shell says it."""
    sys.exit(128 + number)
