"""SIGHUP: settings, certificates, tokens, schemas and keys again.

What cannot be used leaves the old in force.
"""

from collections.abc import Sequence
from typing import Protocol

from gateway.node.reloaded.credential_keys import CredentialKeys
from gateway.process import Background


class Reloadable(Protocol):
    """A part that reads its files again."""

    def reload(self) -> None:
        """Read them. What cannot be used is logged and leaves the old in force."""


class Reload:
    """Reads again what may change while the gateway runs."""

    def __init__(
        self, parts: Sequence[Reloadable], *, keys: CredentialKeys, background: Background
    ) -> None:
        """
        Args:
            parts: read their files again, in this order.
            keys: are looked for again, in the background.
            background: runs that.
        """
        self._parts = parts
        self._keys = keys
        self._background = background

    def run(self) -> None:
        """Read everything again."""
        for part in self._parts:
            part.reload()
        self._background.add(self._keys.refresh(), "jwks-reload")
