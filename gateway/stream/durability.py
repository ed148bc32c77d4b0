"""What an acknowledgement means: whether the server syncs to disk before it answers."""

import asyncio
import json
import urllib.error
import urllib.request
from typing import Any, Final, Literal

Durability = Literal["fsync", "stream", "unverified"]

_TIMEOUT_S: Final = 3.0


async def probe_durability(monitoring_url: str | None) -> Durability:
    """Ask a nats-server's monitoring endpoint (`/varz`) for its `sync_interval`.

    Returns:
        "fsync" if it syncs every write before it acknowledges, "stream" if not, "unverified" if it
        cannot be asked.
    """
    if monitoring_url is None:
        return "unverified"
    try:
        varz = await asyncio.to_thread(_fetch, monitoring_url.rstrip("/") + "/varz")
    except (OSError, ValueError, urllib.error.URLError):
        return "unverified"
    config = varz.get("jetstream", {}).get("config", {})
    return "fsync" if config.get("sync_always") is True else "stream"


def _fetch(url: str) -> Any:
    if not url.startswith(("http://", "https://")):
        raise ValueError("monitoring_url must begin with http:// or https://")
    with urllib.request.urlopen(url, timeout=_TIMEOUT_S) as response:  # noqa: S310  # scheme checked
        return json.load(response)
