"""Which frame may come in which state of a session. Pure: the machine asks before it moves."""

from typing import Final

from gateway.session.errors import DataError, PolicyViolation, SessionError
from gateway.session.intake import Storable
from gateway.session.regions import State
from tidegate.wire import frames
from tidegate.wire.grammar import is_token

COMMAND_ID_MAX_CHARS: Final = 64


def check_turn(
    received: list[Storable] | frames.Result | frames.Received | str, state: State
) -> frames.Result | frames.Received | str:
    """A frame that is no hello and, in this state, must be no message.

    Raises:
        PolicyViolation: it may not come now, or names a command by what cannot be its id.
    """
    if state is State.GREETING:
        raise PolicyViolation("hello", "the first frame must be hello")
    if state is State.RESUMING:
        raise PolicyViolation("hello", "a frame before welcome")
    if isinstance(received, list):
        raise PolicyViolation("hello", "a message before the further hello is answered")
    if isinstance(received, str):
        return received
    if len(received.id) > COMMAND_ID_MAX_CHARS:
        name = "result" if isinstance(received, frames.Result) else "received"
        raise PolicyViolation(name, f"id is longer than {COMMAND_ID_MAX_CHARS} characters")
    return received


def check_hello(hello: frames.Hello, state: State, *, idle: bool) -> None:
    """A hello, the first one or a further one.

    Args:
        hello: as the device sent it.
        state: of the session.
        idle: whether every message is settled and acknowledged.

    Raises:
        PolicyViolation: it may not come now, or its outbox is no token.
    """
    if state is State.RESUMING:
        raise PolicyViolation("hello", "a frame before welcome")
    if state is State.CHANGING:
        raise PolicyViolation("hello", "a hello before the one before it is answered")
    if not idle:
        raise PolicyViolation("hello", "a further hello while messages are not acknowledged")
    if not is_token(hello.outbox):
        raise PolicyViolation("hello", "outbox must match [A-Za-z0-9_-]{1,64}")


def offence_of(error: str, detail: str) -> SessionError:
    """The offence of a frame that cannot be read."""
    return (DataError if error in ("utf8", "json") else PolicyViolation)(error, detail)
