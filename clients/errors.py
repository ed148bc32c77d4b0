"""What a device's application may have to deal with.

DeviceError
 +-- Rejected            the message cannot be sent as it is: type, size, no JSON form
 +-- OutboxError         the outbox file cannot be used, or another process uses it
 |    +-- OutboxFull      it is at its bound, and the policy is to refuse
 +-- CredentialRefused   the gateway believes no credential the provider gave
 +-- Unreachable         the address is no Tidegate (404, 426, 400): retrying cannot help
"""


class DeviceError(Exception):
    """Base of the client's errors."""


class Rejected(DeviceError):
    """The message cannot be sent as it is. Nothing was queued."""


class OutboxError(DeviceError):
    """The outbox file cannot be used, or another process uses it."""


class OutboxFull(OutboxError):
    """The outbox is at its bound of messages, bytes or age. Nothing was queued; try again later."""


class CredentialRefused(DeviceError):
    """The gateway believes no credential the provider gave. Messages stay in the outbox."""


class Unreachable(DeviceError):
    """The address is no Tidegate. Messages stay in the outbox."""
