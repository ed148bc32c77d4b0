"""The tokens of operators and the certificate of their port: read at the start, again at SIGHUP."""

import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Final, Protocol

import structlog

from gateway.node.reloaded.certificate import Gauges, following, transport_of
from gateway.ops.access import Access, Judge, JudgedBefore, Token, parse_tokens
from gateway.ops.errors import BadTokenFile
from gateway.settings import Ops, Tls

_log = structlog.get_logger(__name__)

OPERATORS_CERTIFICATE: Final = "tidegate_operators_certificate_expires_seconds"
"""The gauge of the certificate of an operators' port, of gateways and of consumers."""


def read_tokens(file: Path) -> tuple[Token, ...]:
    """The tokens of a file.

    Raises:
        BadTokenFile: it cannot be read, or holds something else. The message names the file.
    """
    try:
        return parse_tokens(file.read_text())
    except OSError as exc:
        raise BadTokenFile(f"{file}: {exc.strerror or exc}") from None
    except (BadTokenFile, UnicodeDecodeError) as exc:
        raise BadTokenFile(f"{file}: {exc}") from None


def tls_of(ops: Ops) -> Tls:
    """The certificate of the operators' port, in the form of that of the devices' port."""
    return Tls(cert_file=ops.tls_cert_file, key_file=ops.tls_key_file)


class OperatorGate(Protocol):
    """Who may use an operators' port, and its TLS."""

    @property
    def access(self) -> Judge:
        """Judges each request."""

    @property
    def tls(self) -> ssl.SSLContext | None:
        """Of the port; None for plain HTTP."""

    def reload(self) -> None:
        """Read the files again."""

    def register_gauges(self, metrics: Gauges) -> None:
        """For the metrics page."""


class WorkerAccess:
    """Of a worker, which answers its supervisor only: the null form of `OperatorAccess`."""

    tls = None

    def __init__(self) -> None:
        self.access = JudgedBefore()

    def reload(self) -> None:
        pass

    def register_gauges(self, metrics: Gauges) -> None:
        pass


class OperatorAccess:
    """Who may use the operators' port, and its TLS."""

    def __init__(
        self, settings: Ops, *, wall: Callable[[], float], clock: Callable[[], float]
    ) -> None:
        """
        Args:
            settings: name the files.
            wall: Unix time in seconds.
            clock: monotonic seconds.

        Raises:
            BadTokenFile: the tokens cannot be used.
            TlsError: the certificate or its key cannot be used.
        """
        self._file = settings.token_file
        tokens = read_tokens(self._file) if self._file is not None else None
        self.access = Access(tokens, wall=wall, clock=clock)
        self.transport = transport_of(tls_of(settings))
        self.tls = following(self.transport)

    def register_gauges(self, metrics: Gauges) -> None:
        """For the metrics page."""
        self.transport.register_gauges(metrics, OPERATORS_CERTIFICATE)

    def reload(self) -> None:
        """Read the files again. What cannot be used leaves the old in force."""
        self.transport.reload()
        if self._file is None:
            return
        try:
            tokens = read_tokens(self._file)
        except BadTokenFile as exc:
            _log.error("operator_tokens_reload_failed", error=str(exc))  # the message is whole
            return
        self.access.replace(tokens)
        _log.info("operator_tokens_reloaded", names=[found.name for found in tokens])
