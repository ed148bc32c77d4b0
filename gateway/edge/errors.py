"""Why the edge refuses a handshake, or cannot serve.

EdgeError
 +-- Refusal       a handshake is answered with an HTTP error instead of an upgrade
 +-- TlsError      certificate or key cannot be used
 +-- ListenError   an address cannot be bound
"""

from http import HTTPStatus


class EdgeError(Exception):
    """Base of this room's errors."""


class Refusal(EdgeError):
    """An HTTP answer to a handshake. `error` and `reason` are from the contract's table."""

    def __init__(
        self,
        status: HTTPStatus,
        error: str,
        *,
        detail: str = "",
        reason: str = "",
        retry_ms: int | None = None,
        ticket: str = "",
    ) -> None:
        """
        Args:
            status: HTTP status.
            error: name of the refusal; also the metric label.
            detail: what was wrong, for the developer of the client.
            reason: of a 503: rate, overload, capacity or draining.
            retry_ms: when to come back.
            ticket: for a slot then.
        """
        super().__init__(error)
        self.status = status
        self.error = error
        self.detail = detail
        self.reason = reason
        self.retry_ms = retry_ms
        self.ticket = ticket

    def __str__(self) -> str:
        return f"{self.status} {self.error} {self.detail}".rstrip()


class TlsError(EdgeError):
    """Certificate or key cannot be used."""


class ListenError(EdgeError):
    """An address cannot be bound. The message names it."""

    def __init__(self, host: str, port: int, cause: OSError) -> None:
        super().__init__(f"cannot listen on {host} port {port}: {cause.strerror or cause}")
