"""The certificate in force. Reloading it does not touch live connections."""

import datetime as dt
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509

from gateway.edge.errors import TlsError


@dataclass(frozen=True, slots=True)
class _Loaded:
    context: ssl.SSLContext
    valid_from: float
    expires_at: float


class Certificate:
    """A server certificate and key. New handshakes use the newest that could be loaded."""

    def __init__(self, cert_file: Path, key_file: Path, *, wall_clock: Callable[[], float]) -> None:
        """
        Args:
            cert_file: PEM, the server's own certificate first.
            key_file: PEM, without a passphrase.
            wall_clock: Unix time in seconds.

        Raises:
            TlsError: they cannot be used. An expired certificate can be: see `trouble`.
        """
        self._cert_file = cert_file
        self._key_file = key_file
        self._wall_clock = wall_clock
        self._loaded = self._load()

    @property
    def context(self) -> ssl.SSLContext:
        return self._loaded.context

    @property
    def expires_in_s(self) -> float:
        """Seconds until clients refuse the certificate in force; negative if they do already."""
        return self._loaded.expires_at - self._wall_clock()

    @property
    def trouble(self) -> str:
        """Why clients refuse the certificate in force for its dates; empty if they do not."""
        return self._trouble_of(self._loaded)

    def reload(self) -> None:
        """Read the files again.

        Raises:
            TlsError: they cannot be used, or the certificate is expired or not valid yet; the
                old one stays in force.
        """
        loaded = self._load()
        trouble = self._trouble_of(loaded)
        if trouble:
            raise TlsError(f"certificate {self._cert_file} {trouble}")
        self._loaded = loaded

    def _trouble_of(self, loaded: _Loaded) -> str:
        now = self._wall_clock()
        if now >= loaded.expires_at:
            return f"expired on {_date(loaded.expires_at)}"
        if now < loaded.valid_from:
            return f"is not valid before {_date(loaded.valid_from)}"
        return ""

    def _load(self) -> _Loaded:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["http/1.1"])
        try:
            leaf = x509.load_pem_x509_certificate(self._cert_file.read_bytes())
        except ValueError as exc:  # OpenSSL would say "PEM lib"
            raise TlsError(f"certificate {self._cert_file} holds none in PEM form") from exc
        except OSError as exc:
            raise TlsError(f"certificate {self._cert_file}: {exc.strerror}") from exc
        try:
            # Without a callback, OpenSSL asks for a passphrase on the terminal and waits.
            context.load_cert_chain(self._cert_file, self._key_file, self._no_passphrase)
        except (OSError, ssl.SSLError) as exc:
            raise TlsError(f"certificate {self._cert_file}, key {self._key_file}: {exc}") from exc
        return _Loaded(
            context, leaf.not_valid_before_utc.timestamp(), leaf.not_valid_after_utc.timestamp()
        )

    def _no_passphrase(self) -> str:
        raise TlsError(
            f"key {self._key_file} has a passphrase, which a gateway cannot ask for; "
            "remove it (openssl pkey -in KEY -out NEWKEY) and let the file's mode protect it"
        )


def _date(moment: float) -> str:
    return dt.datetime.fromtimestamp(moment, dt.UTC).strftime("%Y-%m-%d %H:%M UTC")
