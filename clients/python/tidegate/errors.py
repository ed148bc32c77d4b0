"""What a device's application may have to deal with.

DeviceError
 +-- Misuse              an option or a call that cannot work
 |    +-- BadAddress        not a ws:// or wss:// address
 |    +-- BadCredential     no token that an HTTP header could carry
 +-- NotOpen             the device is not open: used outside `async with`
 +-- Rejected            the message cannot be sent as it is: type, size, depth, no JSON form
 +-- OutboxError         the outbox file cannot be used, or is open already
 |    +-- OutboxFull        it is at its bound, and the policy is to refuse
 +-- CredentialRefused   the gateway believes no credential the provider gave
 +-- Unreachable         every address says that it is no device endpoint (400, 404, 426)
 +-- CallbackFailed      a callback of the application raised, or is asynchronous

What the peer or the network does wrong is none of these: it is a failed attempt, and another
follows.
"""


class DeviceError(Exception):
    """Base of the client's errors."""


class Misuse(DeviceError):
    """An option or a call that cannot work, whatever the gateway does."""


class BadAddress(Misuse):
    """Not a `ws://` or `wss://` address."""


class BadCredential(Misuse):
    """No token that an HTTP header could carry. The message never holds the token."""


class NotOpen(DeviceError):
    """The device is not open: it was used before `async with` or after it."""


class Rejected(DeviceError):
    """The message cannot be sent as it is. Nothing was queued."""


class OutboxError(DeviceError):
    """The outbox file cannot be used, or is open already."""


class OutboxFull(OutboxError):
    """The outbox is at its bound of messages, bytes or age. Nothing was queued; try again later."""


class CredentialRefused(DeviceError):
    """The gateway believes no credential the provider gave. Messages stay in the outbox."""


class Unreachable(DeviceError):
    """Every address says that it is no device endpoint. Messages stay in the outbox."""


class CallbackFailed(DeviceError):
    """A callback of the application raised (see `__cause__`), or is asynchronous.

    The device has stopped: what a callback was told is not told again, so going on would hide it.
    """
