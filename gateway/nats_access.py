"""How a process signs in to NATS, from the settings: one way for the gateway and every command."""

import ssl
from dataclasses import replace
from pathlib import Path
from typing import Final

from pydantic import SecretStr

from gateway.settings import Settings
from gateway.stream.errors import ConnectError, ServerError
from gateway.stream.link.dialing import NatsAddress
from gateway.stream.server.roles import Role, url_file

PATIENCE_S: Final = 4.0
"""How long a person waits for a command that finds no server."""


def nats_address(settings: Settings, role: Role, *, embedded_url: str | None = None) -> NatsAddress:
    """Where NATS is and how `role` signs in there.

    If `nats.urls` is set, everything comes from section `nats` of the settings, so each role needs
    a settings file of its own. If it is not set, a running gateway has written the address and the
    password of each role into its data directory.

    Args:
        settings: of the process.
        role: the user whose rights the process needs.
        embedded_url: address of the embedded server, if this process runs it.

    Raises:
        ConnectError: a file of `nats.tls_*` cannot be used.
        ServerError: no gateway runs on the data directory.
    """
    nats = settings.nats
    urls = nats.urls
    if not urls:
        url = embedded_url if embedded_url is not None else _read_url(nats.data_dir, role)
        urls = (url,)
    return NatsAddress(
        urls=urls,
        inbox_prefix=role.inbox_prefix,
        user=nats.user,
        password=_reveal(nats.password),
        token=_reveal(nats.token),
        credentials_file=str(nats.credentials_file) if nats.credentials_file else None,
        tls=_tls(settings),
        connect_timeout_s=nats.connect_timeout_ms / 1000,
        reconnect_wait_s=nats.reconnect_wait_ms / 1000,
        reconnect_wait_max_s=nats.reconnect_wait_max_ms / 1000,
    )


def in_time(address: NatsAddress) -> NatsAddress:
    """`address` with a timeout for each server, so that all attempts together take `PATIENCE_S`."""
    each_s = PATIENCE_S / len(address.urls)
    return replace(address, connect_timeout_s=min(address.connect_timeout_s, each_s))


def _read_url(data_dir: Path, role: Role) -> str:
    try:
        return url_file(data_dir, role).read_text().strip()
    except FileNotFoundError:
        raise ServerError(
            f"no embedded NATS runs on {data_dir}: start the gateway first, or set nats.urls"
        ) from None
    except OSError as exc:
        raise ServerError(f"{exc.filename}: {exc.strerror}") from exc


def _tls(settings: Settings) -> ssl.SSLContext | None:
    nats = settings.nats
    if nats.tls_ca_file is None and nats.tls_cert_file is None:
        return None
    try:
        ca_file = str(nats.tls_ca_file) if nats.tls_ca_file is not None else None
        context = ssl.create_default_context(cafile=ca_file)
        if nats.tls_cert_file is not None:
            # With an empty passphrase, OpenSSL does not ask for one on the terminal.
            context.load_cert_chain(nats.tls_cert_file, nats.tls_key_file, password="")
    except (OSError, ssl.SSLError) as exc:
        raise ConnectError(f"nats.tls_*: {exc}") from exc
    return context


def _reveal(secret: SecretStr | None) -> str | None:
    return secret.get_secret_value() if secret is not None else None
