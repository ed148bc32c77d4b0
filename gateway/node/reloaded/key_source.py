"""Verification keys from a file or a URL, kept fresh: the shell of `admission.keys`."""

import asyncio
import contextlib
import math
import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import aiohttp
import msgspec
import structlog

from gateway.admission.errors import KeySetError
from gateway.admission.keys import KeySet
from gateway.errors import KeyFetchError

_log = structlog.get_logger(__name__)

_DOCUMENT_BYTES_MAX: Final = 1_048_576
_FETCH_TIMEOUT_S: Final = 10.0
_LOOK_EVERY_S: Final = 10.0
"""Unknown keys cause a look at most this often, however many credentials name one."""
_LOOK_JITTER_S: Final = 1.0
"""Spreads the looks of a fleet's nodes when the issuer rotates its keys."""


class KeySource:
    """Reads a JWKS and reads it again, so that keys can rotate without a restart."""

    def __init__(
        self,
        *,
        file: Path | None,
        url: str | None,
        algorithms: Sequence[str],
        refresh_s: float,
        rng: random.Random,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        Args:
            file: a JWKS file, or None.
            url: a JWKS URL, if there is no file.
            algorithms: the allow-list.
            refresh_s: seconds between looks; a file is read when it has changed.
            rng: source of jitter, so that a fleet of gateways does not fetch at once.
            clock: monotonic seconds.
        """
        assert (file is None) != (url is None)
        self._file = file
        self._url = url
        self._algorithms = tuple(algorithms)
        self._refresh_s = refresh_s
        self._rng = rng
        self._clock = clock
        self._last: bytes | None = None
        self._looked_at = -math.inf
        self._read_at = clock()
        self._wanted = asyncio.Event()

    async def load(self) -> KeySet:
        """Read the keys now.

        Raises:
            KeyFetchError: they cannot be read.
            KeySetError: they cannot be used.
        """
        self._looked_at = self._clock()
        self._wanted.clear()
        document = await self._read()
        try:
            keys = KeySet.from_jwks(_parse(document), self._algorithms)
        except KeySetError as exc:
            raise KeySetError(f"JWKS {self._file or self._url}: {exc}") from None
        self._last = document
        self._read_at = self._clock()
        return keys

    @property
    def age_s(self) -> float:
        """Since usable keys were last read, seconds. It grows while the issuer does not answer."""
        return self._clock() - self._read_at

    def look_soon(self) -> None:
        """A credential names an unknown key, which may have been added since the last look.

        Costs nothing and never waits: `keep_fresh` looks once for all such calls.
        """
        self._wanted.set()

    async def keep_fresh(self, on_change: Callable[[KeySet], None]) -> None:
        """Look again for ever. A broken document leaves the keys in force as they are."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._refresh_s * self._rng.uniform(0.8, 1.2)):
                    await self._wanted.wait()
                    await asyncio.sleep(self.wait_s())
            await self.refresh(on_change)

    def wait_s(self) -> float:
        """Seconds that a look wanted now must wait: until its turn, and some jitter."""
        since_s = self._clock() - self._looked_at
        return max(0.0, _LOOK_EVERY_S - since_s) + self._rng.uniform(0, _LOOK_JITTER_S)

    async def refresh(self, on_change: Callable[[KeySet], None]) -> None:
        """Look once, and call `on_change` if the document has changed."""
        before = self._last
        try:
            keys = await self.load()
        except (KeyFetchError, KeySetError) as exc:
            _log.error("jwks_refresh_failed", error=str(exc))  # the message says it all
            return
        if self._last != before:
            _log.info("jwks_changed", keys=len(keys))
            on_change(keys)

    async def _read(self) -> bytes:
        if self._file is not None:
            try:
                return await asyncio.to_thread(self._file.read_bytes)
            except OSError as exc:
                raise KeyFetchError(f"JWKS {self._file}: {exc.strerror}") from exc
        assert self._url is not None
        timeout = aiohttp.ClientTimeout(total=_FETCH_TIMEOUT_S)
        try:
            async with (
                aiohttp.ClientSession(timeout=timeout) as http,
                http.get(self._url, allow_redirects=False) as response,
            ):
                if response.status != 200:  # noqa: PLR2004  # the one status that carries keys
                    raise KeyFetchError(f"JWKS {self._url}: HTTP {response.status}")
                body = bytearray()
                async for chunk in response.content.iter_any():
                    body += chunk
                    if len(body) > _DOCUMENT_BYTES_MAX:
                        raise KeyFetchError(f"JWKS {self._url}: over {_DOCUMENT_BYTES_MAX} bytes")
        except (aiohttp.ClientError, TimeoutError, OSError) as exc:
            raise KeyFetchError(f"JWKS {self._url}: {type(exc).__name__} {exc}") from exc
        return bytes(body)


def _parse(document: bytes) -> Any:
    try:
        return msgspec.json.decode(document)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise KeySetError(f"not JSON: {exc}") from None
