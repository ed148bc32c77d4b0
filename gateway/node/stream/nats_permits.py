"""What NATS lets this node do: its rights, and whether its streams are there."""

from typing import Any, Final

import nats.errors
import structlog

from gateway.stream.link.client import LinkClient
from gateway.stream.link.dialing import describe
from gateway.stream.names import AUDITED
from gateway.stream.provisioning.checkup import Denials, missing_rights, missing_streams

_log = structlog.get_logger(__name__)

_DENIED_MAX: Final = 100
"""Distinct denials kept for the log and `/status`: each may name a device's subject."""


class NatsPermits:
    """Checks whether NATS lets this node work, and says what is missing."""

    def __init__(self) -> None:
        self._denials = Denials()
        self._denied: set[str] = set()
        self._missing_rights: list[str] = []
        self._missing_streams: list[str] = []

    @property
    def trouble(self) -> str | None:
        """Why NATS does not let this node work, or None."""
        if self._missing_rights:
            return "nats_rights"
        return "no_stream" if set(AUDITED) & set(self._missing_streams) else None

    @property
    def denied(self) -> list[str]:
        """What the server forbade on this connection."""
        return sorted(self._denied)

    @property
    def rights_missing(self) -> bool:
        return bool(self._missing_rights)

    def on_down(self) -> None:
        """The connection is lost: the next one may have other rights."""
        self._denials = Denials()
        self._denied.clear()

    def on_denied(self, text: str) -> None:
        """The server forbade something: log it once a connection, however often it happens."""
        self._denials.add(text)
        if text not in self._denied and len(self._denied) < _DENIED_MAX:
            self._denied.add(text)
            _log.warning("nats_denied", error=text)

    async def check_rights(self, client: LinkClient) -> None:
        """Try every right that a gateway needs."""
        before = self._missing_rights
        self._missing_rights = await missing_rights(client, self._denials)
        if self._missing_rights and self._missing_rights != before:
            _log.error(
                "nats_rights_missing",
                missing=self._missing_rights,
                hint="config/README.md lists what the gateway's user needs",
            )
        elif before and not self._missing_rights:
            _log.info("nats_rights_granted")

    async def look(self, client: LinkClient) -> None:
        """Look again for what was missing."""
        try:
            if self._missing_rights:
                if any(right.startswith("subscribe") for right in self._missing_rights):
                    await client.discard()  # subscriptions are made on a fresh connection
                    return
                await self.check_rights(client)
            if not self._missing_rights:
                self._say_missing(await missing_streams(client))
        except (nats.errors.Error, TimeoutError) as exc:
            _log.debug("checkup_unanswered", error=describe(exc))  # the publisher sees it too

    def status(self) -> dict[str, Any]:
        """For the status page."""
        return {
            "missing_rights": self._missing_rights,
            "missing_streams": self._missing_streams,
            "denied": self.denied,
        }

    def _say_missing(self, missing: list[str]) -> None:
        if missing and missing != self._missing_streams:
            _log.error(
                "stream_missing",
                streams=missing,
                hint="restore it, or make it anew: tidegate provision --apply",
            )
        elif self._missing_streams and not missing:
            _log.info("stream_is_back", streams=self._missing_streams)
        self._missing_streams = missing
