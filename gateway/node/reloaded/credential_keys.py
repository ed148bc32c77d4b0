"""The keys that credentials are verified with: read before the first knock, and kept fresh."""

import random
from collections.abc import Callable, Coroutine, Iterable
from pathlib import Path
from typing import Any

import structlog

from gateway import development
from gateway.admission.credential import CredentialVerifier
from gateway.admission.keys import KeySet
from gateway.node.limits import credential_policy
from gateway.node.reloaded.key_source import KeySource
from gateway.process import Work
from gateway.settings import Credentials
from tidegate.wire.grammar import is_token

_log = structlog.get_logger(__name__)


class CredentialKeys:
    """The verifier of a node, and where its keys come from."""

    def __init__(
        self,
        credentials: Credentials,
        *,
        data_dir: Path,
        wall: Callable[[], float],
        clock: Callable[[], float],
        rng: random.Random,
    ) -> None:
        """
        Args:
            credentials: the settings. Without a JWKS, the development key of `data_dir` is used.
            data_dir: of the gateway.
            wall: Unix time in seconds; credentials expire by it.
            clock: local time in seconds; the age of the keys is measured by it.
            rng: source of jitter.
        """
        self._data_dir = data_dir
        self.development = credentials.jwks_file is None and credentials.jwks_url is None
        """Whether the development key is believed."""
        file = development.key_file(data_dir) if self.development else credentials.jwks_file
        self._source = KeySource(
            file=file,
            url=credentials.jwks_url,
            algorithms=credentials.algorithms,
            refresh_s=credentials.jwks_refresh_ms / 1000,
            rng=rng,
            clock=clock,
        )
        self.verifier = CredentialVerifier(
            KeySet(()),
            credential_policy(credentials),
            clock=wall,
            is_token=is_token,
            cache_entries_max=credentials.cache_entries,
            on_unknown_key=self._source.look_soon,
        )
        """Verifies nothing until `start` has read the keys."""

    async def start(self) -> None:
        """Read the keys.

        Raises:
            KeyFetchError: they cannot be read.
            KeySetError: they cannot be used.
        """
        if self.development:
            file = development.ensure_key(self._data_dir)
            _log.warning(
                "development_key", file=str(file), hint="set credentials.jwks_file or _url"
            )
        self.verifier.rotate(await self._source.load())

    def work(self) -> Iterable[Work]:
        """Look for new keys as long as the node runs."""
        yield "jwks", self._source.keep_fresh(self.verifier.rotate)

    def refresh(self) -> Coroutine[Any, Any, None]:
        """Look for new keys now; if they cannot be used, the old ones stay in force."""
        return self._source.refresh(self.verifier.rotate)

    @property
    def age_s(self) -> float:
        """Since usable keys were last read, seconds."""
        return self._source.age_s
