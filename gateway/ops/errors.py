"""Why the operators' port cannot serve, or refuses a request.

OpsError
 +-- OpsListenError   the address cannot be bound
 +-- BadOrder         the body of a request cannot be used
"""


class OpsError(Exception):
    """Base of this room's errors."""


class OpsListenError(OpsError):
    """The address cannot be bound. The message names it."""

    def __init__(self, host: str, port: int, cause: OSError) -> None:
        super().__init__(f"cannot listen on {host} port {port}: {cause.strerror or cause}")


class BadOrder(OpsError):
    """The body of a request cannot be used. The message names the offence."""
