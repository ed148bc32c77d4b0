"""The certificate of a listener, reloaded on SIGHUP; `PlainTcp` where there is none."""

import ssl
import time
from collections.abc import Callable
from typing import Protocol

import structlog

from gateway.edge.errors import TlsError
from gateway.edge.listening.tls import Certificate
from gateway.settings import Tls

_log = structlog.get_logger(__name__)


class Gauges(Protocol):
    """The metrics of a process, as far as gauges are concerned."""

    def gauge(self, name: str, documentation: str, source: Callable[[], float], /) -> None:
        """Show `source()` as a gauge at each scrape."""


class Transport(Protocol):
    """Over what connections come in."""

    def context(self) -> ssl.SSLContext | None:
        """TLS for new connections; None for plain TCP."""

    def reload(self) -> None:
        """Read the certificate again; if it cannot be used, the old one stays in force."""

    def register_gauges(self, metrics: Gauges, expires: str) -> None:
        """For the metrics page; `expires` is the name of the gauge of the certificate."""


class PlainTcp:
    """The null form of `Transport`: connections come over plain TCP."""

    def context(self) -> ssl.SSLContext | None:
        return None

    def reload(self) -> None:
        pass

    def register_gauges(self, metrics: Gauges, expires: str) -> None:
        pass


class TlsTransport:
    """Connections come over TLS with the newest certificate that could be loaded."""

    def __init__(self, certificate: Certificate) -> None:
        self._certificate = certificate

    def context(self) -> ssl.SSLContext | None:
        return self._certificate.context

    def reload(self) -> None:
        try:
            self._certificate.reload()
        except TlsError as exc:
            _log.error("certificate_reload_failed", error=str(exc))  # the message is whole
        else:
            expires_in_days = round(self._certificate.expires_in_s / 86_400, 1)
            _log.info("certificate_reloaded", expires_in_days=expires_in_days)

    def register_gauges(self, metrics: Gauges, expires: str) -> None:
        metrics.gauge(
            expires,
            "Seconds until the certificate in force expires; negative if it has.",
            self._expires_in_s,
        )

    def _expires_in_s(self) -> float:
        return self._certificate.expires_in_s


def following(transport: Transport) -> ssl.SSLContext | None:
    """TLS for a listener that is bound once: each handshake takes the certificate in force then.

    asyncio keeps the context that a server was made with. OpenSSL calls the callback in every
    handshake, also if the client names no server.
    """
    context = transport.context()
    if context is None:
        return None

    def choose(connection: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> None:
        in_force = transport.context()
        assert in_force is not None
        connection.context = in_force

    context.sni_callback = choose
    return context


def transport_of(tls: Tls) -> Transport:
    """What the settings want connections to come over.

    Raises:
        TlsError: the certificate or its key cannot be used.
    """
    if tls.cert_file is None or tls.key_file is None:
        return PlainTcp()
    certificate = Certificate(tls.cert_file, tls.key_file, wall_clock=time.time)
    if certificate.trouble:
        _log.error(
            "certificate_not_valid",
            file=str(tls.cert_file),
            problem=certificate.trouble,
            hint="clients refuse it: put a new one in its place and send SIGHUP",
        )
    return TlsTransport(certificate)
