"""Verification keys from a file or a URL, kept fresh: the shell of `admission.keys`."""

import asyncio
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import aiohttp
import msgspec
import structlog

from gateway.admission.errors import KeySetError
from gateway.admission.keys import KeySet
from gateway.edge.errors import KeyFetchError

_log = structlog.get_logger(__name__)

_DOCUMENT_BYTES_MAX: Final = 1_048_576
_FETCH_TIMEOUT_S: Final = 10.0


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
    ) -> None:
        """
        Args:
            file: a JWKS file, or None.
            url: a JWKS URL, if there is no file.
            algorithms: the allow-list.
            refresh_s: seconds between looks; a file is read when it has changed.
            rng: source of jitter, so that a fleet of gateways does not fetch at once.
        """
        assert (file is None) != (url is None)
        self._file = file
        self._url = url
        self._algorithms = tuple(algorithms)
        self._refresh_s = refresh_s
        self._rng = rng
        self._last: bytes | None = None

    async def load(self) -> KeySet:
        """Read the keys now.

        Raises:
            KeyFetchError: they cannot be read.
            KeySetError: they cannot be used.
        """
        document = await self._read()
        keys = KeySet.from_jwks(_parse(document), self._algorithms)
        self._last = document
        return keys

    async def keep_fresh(self, on_change: Callable[[KeySet], None]) -> None:
        """Look again for ever; a broken document leaves the keys in force as they are."""
        while True:
            await asyncio.sleep(self._refresh_s * self._rng.uniform(0.8, 1.2))
            await self.refresh(on_change)

    async def refresh(self, on_change: Callable[[KeySet], None]) -> None:
        """Look once; tell `on_change` if the document is another."""
        before = self._last
        try:
            keys = await self.load()
        except (KeyFetchError, KeySetError) as exc:
            _log.error("jwks_refresh_failed", error=str(exc))  # the message is whole
            return
        if self._last != before:
            _log.info("jwks_changed", keys=len(keys))
            on_change(keys)

    async def _read(self) -> bytes:
        if self._file is not None:
            try:
                return await asyncio.to_thread(self._file.read_bytes)
            except OSError as exc:
                raise KeyFetchError(f"JWKS file: {exc}") from exc
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
    except msgspec.DecodeError as exc:
        raise KeySetError(f"JWKS is not JSON: {exc}") from None
