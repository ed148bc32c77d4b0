"""The errors of the client.

ClientError
 +-- DeviceError              reaches the application, and most of them end the device
 |    +-- Misuse              an option or a call that cannot work
 |    |    +-- BadAddress        not a ws:// or wss:// address
 |    |    +-- BadCredential     a token that an HTTP header cannot carry
 |    +-- NotOpen             the device is not open: used outside `async with`
 |    +-- Rejected            the message cannot be sent unchanged: type, size, depth, no JSON form
 |    +-- OutboxError         the outbox file cannot be used, or is open already
 |    |    +-- OutboxFull        the outbox is at a bound, and its policy is to refuse
 |    +-- CredentialRefused   the gateway accepts no credential of the provider
 |    +-- Unreachable         every address says that it is no device endpoint (400, 404, 426)
 |    +-- CallbackFailed      a callback of the application raised, or is asynchronous
 +-- CommandFailed            raised by an application's handler: the command has failed
 +-- AttemptEnded             stays in the client: an attempt has ended, and another one follows
      +-- ProtocolViolation   the gateway sent something that the contract does not allow
      +-- Refused, Silent, NotAGateway, Closed   how a connection fails (`connection.py`)
      +-- ProviderFailed      the credential provider raised (`wallet.py`)
      +-- SentAway, MovedOn   a session ends for a better one (`runner.py`)

Bytes that are no frame of the contract have a family of their own (`tidegate.wire.errors`).
"""

from typing import Any


class ClientError(Exception):
    """Base of the client's errors."""


class DeviceError(ClientError):
    """Base of the errors that reach an application."""


class Misuse(DeviceError):
    """An option or a call that cannot work, whatever the gateway does."""


class BadAddress(Misuse):
    """Not a `ws://` or `wss://` address."""


class BadCredential(Misuse):
    """A token that an HTTP header cannot carry. The error never contains the token."""


class NotOpen(DeviceError):
    """The device is not open: it was used before `async with` or after it."""


class Rejected(DeviceError):
    """The message cannot be sent unchanged. Nothing was queued."""


class OutboxError(DeviceError):
    """The outbox file cannot be used, or is open already."""


class OutboxFull(OutboxError):
    """The outbox is at its bound of messages, bytes or age. Nothing was queued; try again later."""


class CredentialRefused(DeviceError):
    """The gateway accepts no credential of the provider. Messages stay in the outbox."""


class Unreachable(DeviceError):
    """Every address says that it is no device endpoint. Messages stay in the outbox."""


class CallbackFailed(DeviceError):
    """A callback of the application raised (see `__cause__`), or is asynchronous.

    The device has ended. A callback is not called again for the same event, so continuing would
    hide the error.
    """


class CommandFailed(ClientError):
    """Raise it in a handler to answer a command with a failure.

    Args:
        error: what went wrong, in a word that a program can compare.
        detail: anything with a JSON form that says more.
    """

    def __init__(self, error: str = "failed", detail: Any = None) -> None:
        super().__init__(error)
        self.error = error
        self.detail = detail


class AttemptEnded(ClientError):
    """An attempt to connect, or a session, has ended, and another one follows."""


class ProtocolViolation(AttemptEnded):
    """The gateway sent something that the contract does not allow."""
