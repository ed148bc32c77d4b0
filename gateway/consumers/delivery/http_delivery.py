"""Delivery to a receiver of CloudEvents (HTTP protocol binding 1.0.2, binary content mode).

At least once: the id of an event is the same in each attempt (`Idempotency-Key`), so a receiver can
drop repeats. Redirects are not followed, and of a response only its first bytes are read.
"""

import asyncio
import email.utils
import random
import time
from collections.abc import Sequence
from typing import Final
from urllib.parse import quote

import aiohttp

from gateway.consumers.delivery.attempts import deliver_each
from gateway.consumers.delivery.derived import derived_id
from gateway.consumers.errors import AttemptFailed
from gateway.consumers.target import Rejected
from gateway.consumers.tracing import onward
from gateway.events.destinations import HttpDestination
from gateway.events.errors import PickError
from gateway.events.event import Event
from gateway.events.hops import HOPS_HEADER, hops_of
from gateway.events.payloads import Picker
from gateway.events.rules import Rule

_RESPONSE_BYTES_MAX: Final = 4_096
_DETAIL_BYTES_MAX: Final = 200
_RETRY_AFTER_MAX_S: Final = 86_400.0
_OK: Final = range(200, 300)
_SAFE: Final = " !#$&'()*+,-./:;<=>?@[]^_`{|}~"
"""ASCII without what the binding has percent-encoded: the percent sign and double quotes."""


class HttpDelivery:
    """The target of one rule. Satisfies `Delivery`."""

    mark = 0
    finds_again = False
    ahead = 1

    def __init__(
        self, rule: Rule, destination: HttpDestination, rng: random.Random, *, traced: bool = False
    ) -> None:
        """
        Args:
            rule: what the events file says of it.
            destination: its address.
            rng: source of jitter.
            traced: whether requests name the span of the rule; see `Deriver`.
        """
        self._rule = rule
        self._url = destination.url
        self._rng = rng
        self._traced = traced
        self._picker = Picker(rule.pick) if rule.pick is not None else None
        self._session: aiohttp.ClientSession | None = None

    async def open(self) -> None:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                timeout=aiohttp.ClientTimeout(total=self._rule.timeout_ms / 1000),
                connector=aiohttp.TCPConnector(limit=self._rule.concurrency),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,  # a small response may be a huge one
            )

    async def begin(self) -> None:
        """A receiver has no position."""

    async def resume(self, after_seq: int, mark: int) -> None:
        """What was sent behind the position is sent again, with the same ids."""

    def send(self, events: Sequence[Event]) -> None:
        """Requests begin when they are delivered."""

    async def deliver(self, events: Sequence[Event]) -> Sequence[Rejected]:
        return await deliver_each(self._rule, events, self._attempt, self._rng)

    async def close(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def _attempt(self, event: Event) -> None:
        assert self._session is not None
        try:
            payload = event.data if self._picker is None else self._picker.payload(event)
        except PickError as exc:
            raise AttemptFailed("pick", str(exc), final=True) from None
        try:
            async with self._session.post(
                self._url,
                data=payload,
                headers=_headers(event, self._rule.name, self._traced),
                allow_redirects=False,
            ) as response:
                if response.status not in _OK:
                    raise await _refusal(response)
        except TimeoutError:
            raise AttemptFailed("timeout", f"no answer in {self._rule.timeout_ms} ms") from None
        except (aiohttp.ClientError, OSError, ValueError) as exc:
            kind = "tls" if isinstance(exc, aiohttp.ClientSSLError) else "connection"
            raise AttemptFailed(kind, f"{type(exc).__name__}: {exc}") from None


def _headers(event: Event, rule: str, traced: bool) -> dict[str, str]:
    found = {
        "Content-Type": "application/json",
        "Idempotency-Key": derived_id(event, rule),
        HOPS_HEADER.decode(): str(hops_of(event) + 1),
        "ce-specversion": "1.0",
        "ce-id": event.header(b"ce-id") or derived_id(event, rule),
        "ce-source": event.header(b"ce-source") or f"tidegate:{event.tenant}/{event.device}",
        "ce-type": event.type,
    }
    if event.time:
        found["ce-time"] = event.time
    traceparent = onward(event, f"rule/{rule}") if traced else event.header(b"traceparent")
    if traceparent:
        found["traceparent"] = traceparent
    return {name: quote(value, safe=_SAFE) for name, value in found.items()}


async def _refusal(response: aiohttp.ClientResponse) -> AttemptFailed:
    """What a response that is no success says."""
    status = response.status
    body = b""
    try:
        async with asyncio.timeout(1.0):
            body = await response.content.read(_RESPONSE_BYTES_MAX)
    except (TimeoutError, aiohttp.ClientError):
        pass  # the status has said it all
    text = body[:_DETAIL_BYTES_MAX].decode(errors="replace")
    if status in range(300, 400):
        return AttemptFailed("redirect", f"{status}: redirects are not followed")
    asked_s = _retry_after_s(response.headers.get("Retry-After", ""))
    return AttemptFailed(f"http_{status}", text or (response.reason or ""), wait_s=asked_s)


def _retry_after_s(text: str) -> float:
    """Seconds from a `Retry-After` (RFC 9110, section 10.2.3), 0 if it says nothing."""
    if text.isascii() and text.isdecimal():
        return min(_RETRY_AFTER_MAX_S, float(text[:9]))
    try:
        moment = email.utils.parsedate_to_datetime(text)
    except ValueError:
        return 0.0
    return min(_RETRY_AFTER_MAX_S, max(0.0, moment.timestamp() - time.time()))
