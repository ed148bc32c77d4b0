"""The ticket secrets of a node: on disk, its own and those its fleet has used, and in force."""

import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Final

import structlog

from gateway import durable_file
from gateway.admission.keyring import Keyring
from gateway.admission.office import NodeTicketOffice
from gateway.data_directory import make_private

_log = structlog.get_logger(__name__)

FLEET_SECRETS: Final = "fleet-secrets"
"""The file of the secrets that a fleet uses."""

_KEPT_MAX: Final = 8


class KeptSecrets:
    """Two files in the data directory, readable by their owner only.

    After a restart the node honours the tickets it issued before. While Redis is away, it also
    issues tickets with the secret of the fleet.
    """

    def __init__(self, directory: Path, write: Callable[[str, str], None] | None = None) -> None:
        """
        Args:
            directory: of the data.
            write: writes a file of that directory, its name and its text; None if this process
                writes there itself.
        """
        self._own = directory / "ticket-secret"
        self._fleet = directory / FLEET_SECRETS
        self._write = write

    def load(self, configured: list[bytes]) -> Keyring:
        """The node's secrets. Without configured ones it has one of its own, made on first use.

        Raises:
            DataDirectoryError: the directory cannot be made.
            OSError: a file can be neither read nor made.
        """
        if not configured and not self._own.exists():
            make_private(self._own.parent)  # before the lock, since keys are made before the parts
            durable_file.create(self._own, secrets.token_urlsafe(32))
        kept = [
            line
            for path in (self._own, self._fleet)
            if path.exists()
            for line in path.read_bytes().split()
        ]
        return Keyring(configured, kept)

    def keep(self, keyring: Keyring) -> None:
        """Write the secrets that the fleet uses to disk; it issues tickets with the last line."""
        if keyring.configured:
            return
        lines = [*reversed(keyring.secrets)][-_KEPT_MAX:]
        try:
            self._replace("".join(f"{line.decode()}\n" for line in lines))
        except OSError as exc:
            _log.error("ticket_secrets_not_kept", file=str(self._fleet), error=exc.strerror)

    def _replace(self, text: str) -> None:
        if self._write is None:
            durable_file.replace(self._fleet, text)
        else:
            self._write(FLEET_SECRETS, text)


class TicketRotation:
    """Brings the secrets of a keyring into force, and keeps them."""

    def __init__(self, keyring: Keyring, office: NodeTicketOffice, kept: KeptSecrets) -> None:
        """
        Args:
            keyring: the secrets of this node and of its fleet.
            office: issues and checks tickets.
            kept: where secrets outlive a restart.
        """
        self._keyring = keyring
        self._office = office
        self._kept = kept

    def rotate(self) -> None:
        """The secrets have changed, or which of them signs."""
        self._office.rotate(self._keyring.secrets)
        self._kept.keep(self._keyring)
