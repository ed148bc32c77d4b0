"""One attempt to reach NATS: where it is, how to sign in, and why it did not work.

nats-py tries a first connection 60 times, 2 s apart, and can wait for ever for one that was
refused. Here an attempt has one bound, and whatever it leaves is closed (`client.py`).
"""

import asyncio
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

import nats.errors
import nkeys

from gateway.stream.errors import ConnectError, Unreachable
from gateway.stream.link.client import LinkClient

_PING_INTERVAL_S: Final = 5
_PINGS_OUTSTANDING_MAX: Final = 2  # a silent server is given up after 15 s
_DENIED: Final = "permissions violation"
_REFUSALS: Final = ("Authorization", "Authentication", "SSL", "Certificate", "certificate")
"""Words of an error that waiting does not cure."""


@dataclass(frozen=True, slots=True)
class NatsAddress:
    """Where NATS is and how to sign in. Secrets are hidden from repr."""

    urls: tuple[str, ...] = field(repr=False)  # the embedded server's holds its password
    inbox_prefix: str = "_INBOX"
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)
    credentials_file: str | None = None
    tls: ssl.SSLContext | None = None
    connect_timeout_s: float = 4.0
    reconnect_wait_s: float = 0.1
    reconnect_wait_max_s: float = 5.0

    def options(self) -> dict[str, Any]:
        """The keyword arguments of nats-py's `connect` for reaching a server and signing in."""
        options: dict[str, Any] = {
            "connect_timeout": self.connect_timeout_s,
            "inbox_prefix": self.inbox_prefix,
            "user": self.user,
            "password": self.password,
            "token": self.token,
            "user_credentials": self.credentials_file,
            "tls": self.tls,
        }
        return {name: value for name, value in options.items() if value is not None}


@dataclass(frozen=True, slots=True)
class Hooks:
    """Called while a connection lasts."""

    closed: Callable[[], None] = lambda: None
    """The connection is gone. May be called more than once."""
    denied: Callable[[str], None] = lambda _subject: None
    """The server denied a permission; takes its words."""
    failed: Callable[[str], None] = lambda _reason: None
    """Something else went wrong."""


_UNHEARD: Final = Hooks()


async def dial(url: str, address: NatsAddress, *, name: str, hooks: Hooks = _UNHEARD) -> LinkClient:
    """Try one server once.

    Args:
        url: the server.
        address: how to sign in.
        name: how the server shows this connection.
        hooks: of the connection.

    Raises:
        Unreachable: the server is away, refuses the sign-in, or is not trusted; with the reason.
        ConnectError: the settings can never work.
    """

    async def closed() -> None:
        hooks.closed()

    reasons: list[str] = []

    async def failed(error: Exception) -> None:
        reasons.append(describe(error))
        if _DENIED in str(error).lower():
            hooks.denied(str(error).removeprefix("nats: "))
        else:
            hooks.failed(describe(error))

    client = LinkClient(hooks.closed)
    connected = False
    try:
        async with asyncio.timeout(address.connect_timeout_s):
            await client.connect(
                url,
                name=name,
                allow_reconnect=False,
                # By default nats-py tries a first connection 60 times, 2 s apart.
                max_reconnect_attempts=1,
                reconnect_time_wait=0,
                ping_interval=_PING_INTERVAL_S,
                max_outstanding_pings=_PINGS_OUTSTANDING_MAX,
                disconnected_cb=closed,
                closed_cb=closed,
                error_cb=failed,
                **address.options(),
            )
        connected = client.is_connected
    except nats.errors.NoServersError as exc:
        raise _unreachable(reasons[-1] if reasons else describe(exc)) from None
    except TimeoutError:
        # If the handshake failed, nats-py still waits until the timeout; the reason is known.
        late = f"no answer within {address.connect_timeout_s:g} s"
        raise _unreachable(reasons[-1] if reasons else late) from None
    except (OSError, nats.errors.Error) as exc:
        raise _unreachable(describe(exc)) from exc
    except (ValueError, TypeError, nkeys.NkeysError) as exc:
        raise ConnectError(f"NATS settings cannot be used: {describe(exc)}") from exc
    finally:
        if not connected:  # also when cancelled: nats-py leaves its socket open
            await client.discard()
    if not connected:
        raise Unreachable("connection lost")
    client.read_directly()
    return client


def _unreachable(reason: str) -> Unreachable:
    return Unreachable(reason, refused=any(word in reason for word in _REFUSALS))


async def connect_once(address: NatsAddress, *, name: str, hooks: Hooks = _UNHEARD) -> LinkClient:
    """Connect to the first server of `address` that can be reached, for a command.

    The caller must close the client, which does not reconnect by itself.

    Raises:
        Unreachable: none answers within `connect_timeout_s` each; with every reason.
        ConnectError: the settings can never work.
    """
    reasons = []
    for url in address.urls:
        try:
            return await dial(url, address, name=name, hooks=hooks)
        except Unreachable as exc:
            reasons.append(f"{without_secret(url)}: {exc}")
    raise Unreachable("; ".join(reasons))


def describe(error: BaseException) -> str:
    """An exception in one line."""
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def without_secret(url: str) -> str:
    """A NATS URL as a log may show it."""
    scheme, _, rest = url.rpartition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}" if scheme else rest.rpartition("@")[2]
