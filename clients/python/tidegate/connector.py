"""One attempt to connect: makes an open WebSocket connection from an address and a credential.

Redirects are not followed: they come from captive portals, and the credential is for the gateway.
"""

import contextlib
import logging
import ssl
from typing import Any, Final

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import (
    ConnectionClosed,
    InvalidMessage,
    InvalidStatus,
    WebSocketException,
)
from websockets.typing import Subprotocol

from tidegate.addresses import parse_address
from tidegate.answers import read_answer
from tidegate.clock import Clock
from tidegate.connection import Closed, NotAGateway, Refused, Silent
from tidegate.dialer import Dialer
from tidegate.errors import Misuse
from tidegate.wire import frames

_CLOSE_TIMEOUT_S: Final = 1.0
"""How long a peer may take to answer a close; then the socket is cut."""
_RECEIVED_BYTES_MAX: Final = 1_048_576


class _NoWireLog(logging.LoggerAdapter[logging.Logger]):
    """Turns DEBUG off, because the library logs every header at that level, the credential too."""

    def isEnabledFor(self, level: int) -> bool:  # noqa: N802  # the name in the base class
        return level > logging.DEBUG and super().isEnabledFor(level)


class _Connect(connect):
    def process_redirect(self, exc: Exception) -> Exception | str:
        return exc


class WebSocket:
    """An open WebSocket connection, as `tidegate.connection.Connection`."""

    def __init__(self, inner: ClientConnection) -> None:
        self._inner = inner

    async def send(self, frame: bytes) -> None:
        try:
            await self._inner.send(frame, text=True)
        except ConnectionClosed as exc:
            raise _closed(exc) from None

    async def receive(self) -> bytes:
        try:
            frame = await self._inner.recv(decode=False)
        except ConnectionClosed as exc:
            raise _closed(exc) from None
        return frame if isinstance(frame, bytes) else frame.encode()

    async def close(self) -> None:
        await self._inner.close()

    def abort(self) -> None:
        self._inner.transport.abort()


def _closed(exc: ConnectionClosed) -> Closed:
    return Closed(exc.rcvd.code, exc.rcvd.reason) if exc.rcvd is not None else Closed()


class Connector:
    """Opens connections over TCP and TLS."""

    def __init__(
        self,
        clock: Clock,
        dialer: Dialer,
        *,
        tls: ssl.SSLContext | None,
        open_timeout_s: float,
        ping_interval_s: float,
    ) -> None:
        """
        Args:
            clock: the time.
            dialer: makes the TCP connection.
            tls: for `wss://` addresses.
            open_timeout_s: how long connecting may take, all of it.
            ping_interval_s: how often a silent connection is probed from this side.
        """
        self._clock = clock
        self._dialer = dialer
        self._tls = tls
        self._open_timeout_s = open_timeout_s
        self._ping_interval_s = ping_interval_s
        self._log = _NoWireLog(logging.getLogger("tidegate.websocket"), {})

    async def connect(self, url: str, token: str, ticket: str | None) -> WebSocket:
        """Knock at `url`.

        Raises:
            Refused: the answer is not a connection.
            Silent: no answer came.
            NotAGateway: what answered is not a gateway.
        """
        try:
            async with self._clock.limit(self._open_timeout_s):
                return WebSocket(await self._connect(url, token, ticket))
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
            # The message may repeat what the peer sent, and the peer may repeat the credential.
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
        with contextlib.ExitStack() as undo:
            undo.callback(sock.close)
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
            undo.pop_all()  # from here on the attempt owns the socket
        return await attempt


def tls_for(urls: list[str], given: ssl.SSLContext | None) -> ssl.SSLContext | None:
    """The TLS context for these addresses: the one given, or the system's; None without `wss://`.

    Raises:
        Misuse: a context is given that cannot be used.
    """
    secure = any(parse_address(url).secure for url in urls)
    if given is not None and not isinstance(given, ssl.SSLContext):
        raise Misuse(f"ssl is an ssl.SSLContext, not {type(given).__name__}")
    if given is not None and not secure:
        raise Misuse("ssl is given, but no address begins with wss://")
    return given if given is not None or not secure else ssl.create_default_context()
