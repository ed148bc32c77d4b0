"""A gateway inside the test's own loop, on an embedded nats-server and free ports."""

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from gateway import development
from gateway.app import Gateway
from gateway.settings import load_settings


@contextlib.asynccontextmanager
async def running_gateway(directory: Path, **settings: Any) -> AsyncIterator[Gateway]:
    """A started gateway. `settings` are dotted keys with `__` for the dot: `limits__json_depth`."""
    overrides: dict[str, Any] = {
        "server.port": 0,
        "ops.port": 0,
        "nats.data_dir": directory,
        "drain.linger_ms": 0,
        "drain.rate_per_s": 10_000.0,
        "session.first_retry_min_ms": 20,
        **{name.replace("__", "."): value for name, value in settings.items()},
    }
    gateway = Gateway(load_settings(None, environment={}, overrides=overrides))
    try:
        await gateway.start()
        yield gateway
    finally:
        gateway.request_stop()
        await gateway.stop()


def token_for(gateway: Gateway, device: str, lifetime_s: int = 600, **claims: Any) -> str:
    """A development credential the gateway believes."""
    return development.mint(gateway.data_dir, device, lifetime_s=lifetime_s, claims=claims)


def url_of(gateway: Gateway) -> str:
    return f"ws://127.0.0.1:{gateway.port}/v1/device"
