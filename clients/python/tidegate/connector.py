"""One knock: from an address and a credential to an open WebSocket connection, or why not.

Redirects are not followed: they come from captive portals, and the credential is for the gateway.
"""

import asyncio
import logging
import ssl
from typing import Any, Final

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidMessage, InvalidStatus, WebSocketException
from websockets.typing import Subprotocol

from tidegate.addresses import parse_address
from tidegate.answers import Refusal, read_answer
from tidegate.dialer import Dialer
from tidegate.wire import frames

_CLOSE_TIMEOUT_S: Final = 1.0
"""How long a peer may take to answer our close; the socket is cut then."""
_RECEIVED_BYTES_MAX: Final = 1_048_576


class Refused(Exception):
    """Somebody answered, but not with a connection."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(str(refusal))
        self.refusal = refusal


class Silent(Exception):
    """Nobody answered."""


class NotAGateway(Exception):
    """Something answered that is no gateway of ours: no WebSocket, a foreign certificate."""


class _NoWireLog(logging.LoggerAdapter[logging.Logger]):
    """The library logs every header at DEBUG, the credential too: that level is never on."""

    def isEnabledFor(self, level: int) -> bool:  # noqa: N802  # the name it has there
        return level > logging.DEBUG and super().isEnabledFor(level)


class _Connect(connect):
    def process_redirect(self, exc: Exception) -> Exception | str:
        return exc


class Connector:
    """Knocks."""

    def __init__(
        self,
        dialer: Dialer,
        *,
        tls: ssl.SSLContext | None,
        open_timeout_s: float,
        ping_interval_s: float,
    ) -> None:
        """
        Args:
            dialer: makes the TCP connection.
            tls: for `wss://` addresses.
            open_timeout_s: how long connecting may take, all of it.
            ping_interval_s: how often a silent connection is probed from this side.
        """
        self._dialer = dialer
        self._tls = tls
        self._open_timeout_s = open_timeout_s
        self._ping_interval_s = ping_interval_s
        self._log = _NoWireLog(logging.getLogger("tidegate.websocket"), {})

    async def connect(self, url: str, token: str, ticket: str | None) -> ClientConnection:
        """
        Raises:
            Refused: answered with something else than a connection.
            Silent: not answered.
            NotAGateway: answered by something else.
        """
        try:
            async with asyncio.timeout(self._open_timeout_s):
                return await self._connect(url, token, ticket)
        except InvalidStatus as exc:
            response = exc.response
            body = bytes(response.body or b"")
            refusal = read_answer(response.status_code, response.headers, body, token)
            raise Refused(refusal) from None
        except TimeoutError:
            raise Silent(f"{url}: no answer within {self._open_timeout_s:g} s") from None
        except ssl.SSLError as exc:  # before OSError, of which it is one
            why = getattr(exc, "verify_message", "") or exc.reason or exc
            raise NotAGateway(f"{url}: TLS: {why}") from None
        except OSError as exc:
            raise Silent(f"{url}: {exc.strerror or exc or type(exc).__name__}") from None
        except InvalidMessage as exc:
            if isinstance(exc.__cause__, EOFError | ConnectionError):
                raise Silent(f"{url}: the connection ended before an answer") from None
            raise NotAGateway(f"{url}: the answer is not HTTP") from None
        except (WebSocketException, ValueError) as exc:
            # Its words may repeat what the peer said, and the peer may repeat the credential.
            raise NotAGateway(f"{url}: no WebSocket handshake ({type(exc).__name__})") from None

    async def _connect(self, url: str, token: str, ticket: str | None) -> ClientConnection:
        address = parse_address(url)
        headers = {"Authorization": f"Bearer {token}"}
        if ticket is not None:
            headers[frames.TICKET_HEADER] = ticket
        options: dict[str, Any] = {}
        if address.secure:
            options = {"ssl": self._tls, "server_hostname": address.host}
        sock = await self._dialer.dial(address.host, address.port)
        try:
            attempt = _Connect(
                url,
                sock=sock,
                subprotocols=[Subprotocol(frames.SUBPROTOCOL)],
                additional_headers=headers,
                user_agent_header=None,
                compression=None,
                proxy=None,
                open_timeout=None,
                close_timeout=_CLOSE_TIMEOUT_S,
                ping_interval=self._ping_interval_s,
                ping_timeout=self._ping_interval_s,
                max_size=_RECEIVED_BYTES_MAX,
                logger=self._log,
                **options,
            )
        except BaseException:
            sock.close()
            raise
        return await attempt
