"""Why the operators' port cannot serve, or refuses a request.

OpsError
 +-- OpsListenError   the address cannot be bound
 +-- BadTokenFile     the file of tokens cannot be used
 +-- BadOrder         the body of a request cannot be used
 +-- Denied           the request may not do this
"""

import errno
import os


class OpsError(Exception):
    """Base of this room's errors."""


class OpsListenError(OpsError):
    """The address cannot be bound. The message names it."""

    def __init__(self, host: str, port: int, cause: OSError) -> None:
        # asyncio's own text of a failed bind names host and port once more.
        code, reason = cause.errno, cause.strerror or str(cause)
        reason = os.strerror(code) if code and code in errno.errorcode else reason
        super().__init__(f"cannot listen on {host} port {port}: {reason}")


class BadTokenFile(OpsError):
    """The file of tokens cannot be used. The message names the line, and holds no token."""


class BadOrder(OpsError):
    """The body of a request cannot be used. The message names the offence."""


class Denied(OpsError):
    """The request may not do this. The message is for the person who asks."""

    def __init__(
        self, status: int, error: str, detail: str, *, retry_s: float = 0.0, who: str = ""
    ) -> None:
        """
        Args:
            status: of HTTP.
            error: a word of a fixed set.
            detail: for people.
            retry_s: when to try again; 0 if that does not help.
            who: the name of the token that was shown, as far as there is one.
        """
        super().__init__(detail)
        self.status = status
        self.error = error
        self.retry_s = retry_s
        self.who = who
