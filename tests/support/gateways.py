"""A gateway inside the test's own loop, on an embedded nats-server and free ports."""

import contextlib
import ssl
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from gateway import development
from gateway.admission.calendar import SlotCalendar
from gateway.app import Gateway
from gateway.settings import load_settings
from loadtest.servers.certificates import make_certificate

Wall = Callable[[], float]
"""Unix time as the machine of a gateway has it."""


@dataclass(frozen=True)
class Way:
    """How devices come to a gateway: over which transport, and where their credential is.

    With plain TCP and a header the raw scan decides; in the three other ways the full parser does.
    """

    tls: bool = False
    subprotocol: bool = False

    def __str__(self) -> str:
        return f"{'tls' if self.tls else 'plain'}-{'subprotocol' if self.subprotocol else 'header'}"


PLAIN_HEADER = Way()
WAYS = [Way(tls, subprotocol) for tls in (False, True) for subprotocol in (False, True)]


@dataclass(frozen=True)
class _Access:
    way: Way
    context: ssl.SSLContext | None


_access: "WeakKeyDictionary[Gateway, _Access]" = WeakKeyDictionary()


def way_of(gateway: Gateway) -> Way:
    """How devices come to `gateway`; plain TCP and a header unless it was started otherwise."""
    return _access[gateway].way if gateway in _access else PLAIN_HEADER


def client_context(gateway: Gateway) -> ssl.SSLContext | None:
    """What a client of `gateway` needs to trust it; None for plain TCP."""
    return _access[gateway].context if gateway in _access else None


@contextlib.asynccontextmanager
async def running_gateway(
    directory: Path, *, way: Way = PLAIN_HEADER, wall: Wall = time.time, **settings: Any
) -> AsyncIterator[Gateway]:
    """A gateway that admits devices. `settings`: `limits__json_depth` is `limits.json_depth`."""
    async with listening_gateway(directory, way=way, wall=wall, **settings) as gateway:
        await gateway.ready()
        yield gateway


@contextlib.asynccontextmanager
async def listening_gateway(
    directory: Path, *, way: Way = PLAIN_HEADER, wall: Wall = time.time, **settings: Any
) -> AsyncIterator[Gateway]:
    """A gateway whose ports are open, and which may still wait for NATS. `settings` as above."""
    context = None
    if way.tls:
        files = make_certificate(directory / "tls")
        context = files.client_context()
        settings = {"tls__cert_file": files.cert, "tls__key_file": files.key, **settings}
    overrides: dict[str, Any] = {
        "server.port": 0,
        "ops.port": 0,
        "nats.data_dir": directory,
        "drain.linger_ms": 0,
        "drain.rate_per_s": 10_000.0,
        "session.first_retry_min_ms": 20,
        # A busy machine delays the loop, which would lower R while a test looks.
        "admission.loop_lag_ms": {"low": 20_000, "high": 30_000},
        **{name.replace("__", "."): value for name, value in settings.items()},
    }
    gateway = Gateway(load_settings(None, environment={}, overrides=overrides), wall=wall)
    _access[gateway] = _Access(way, context)
    try:
        await gateway.start()
        yield gateway
    finally:
        await gateway.stop()


def token_for(gateway: Gateway, device: str, lifetime_s: int = 600, **claims: Any) -> str:
    """A development credential the gateway believes."""
    return development.mint(gateway.data_dir, device, lifetime_s=lifetime_s, claims=claims)


def url_of(gateway: Gateway) -> str:
    scheme = "wss" if way_of(gateway).tls else "ws"
    return f"{scheme}://127.0.0.1:{gateway.port}/v1/device"


def fill_calendar(gateway: Gateway, lead_s: float) -> None:
    """Put the next free slot of a node of its own `lead_s` ahead, as after so long a storm."""
    calendar = gateway.admission.membership.calendar
    assert isinstance(calendar, SlotCalendar)
    calendar.advance_to(time.monotonic() + lead_s)
