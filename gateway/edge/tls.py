"""The certificate in force, reloaded on demand without touching live connections."""

import ssl
from pathlib import Path

from gateway.edge.errors import TlsError


class Certificate:
    """A server certificate and key. New handshakes use the newest that could be loaded."""

    def __init__(self, cert_file: Path, key_file: Path) -> None:
        """
        Raises:
            TlsError: they cannot be used.
        """
        self._cert_file = cert_file
        self._key_file = key_file
        self._context = self._load()

    @property
    def context(self) -> ssl.SSLContext:
        return self._context

    def reload(self) -> None:
        """Read the files again.

        Raises:
            TlsError: they cannot be used; the old certificate stays in force.
        """
        self._context = self._load()

    def _load(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["http/1.1"])
        try:
            context.load_cert_chain(self._cert_file, self._key_file)
        except (OSError, ssl.SSLError) as exc:
            raise TlsError(f"certificate {self._cert_file}, key {self._key_file}: {exc}") from exc
        return context
