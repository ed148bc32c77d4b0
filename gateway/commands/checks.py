"""What `tidegate check-config` checks beyond the form of each setting.

It finds files that cannot be used, ports that collide, and servers that refuse.
"""

import asyncio
import datetime as dt
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import nats.errors
import nkeys
import orjson
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from gateway.admission.errors import KeySetError
from gateway.admission.keys import KeySet
from gateway.cluster.errors import RedisUnavailable
from gateway.cluster.link import RedisLink
from gateway.errors import KeyFetchError
from gateway.events.document import read_events_file
from gateway.events.errors import EventsError
from gateway.nats_access import in_time, nats_address
from gateway.node.reloaded.key_source import KeySource
from gateway.node.reloaded.schemas_in_force import read_folder
from gateway.ops.access import parse_tokens
from gateway.ops.errors import BadTokenFile
from gateway.settings import Settings
from gateway.stream.commands.interest import PROBE
from gateway.stream.errors import StreamError
from gateway.stream.link.dialing import Hooks, connect_once
from gateway.stream.provisioning.checkup import Denials, missing_rights
from gateway.stream.provisioning.provision import check_payload
from gateway.stream.server.roles import Role
from gateway.supervisor.descriptors import check_descriptors
from gateway.supervisor.errors import RedisNotStarted, TooManyWorkers
from gateway.supervisor.redis_server import find_binary
from gateway.telemetry.errors import BadHeadersFile
from gateway.telemetry.headers_file import parse_headers

_CONNECT_S: Final = 4.0
_NAME: Final = "tidegate-check-config"
_BEGIN_SEED: Final = "-----BEGIN USER NKEY SEED-----"
_BEGIN_JWT: Final = "-----BEGIN NATS USER JWT-----"


class _Unusable(Exception):
    """What is wrong with one file."""


def problems(settings: Settings, *, now: dt.datetime | None = None) -> list[str]:
    """The files that are named and cannot be used, and what this machine does not allow.

    Args:
        settings: valid ones.
        now: for the lifetimes of certificates.
    """
    now = now if now is not None else dt.datetime.now(dt.UTC)
    return [
        *_of_files(settings, now),
        *_of_directory(settings.nats.data_dir),
        *_of_workers(settings),
    ]


def _of_files(settings: Settings, now: dt.datetime) -> Iterator[str]:
    credentials, tls, nats = settings.credentials, settings.tls, settings.nats
    ops = settings.ops
    checks: list[tuple[str, Path | None, Callable[[Path], None]]] = [
        (
            "credentials.jwks_file",
            credentials.jwks_file,
            lambda path: _check_jwks(path, credentials.algorithms),
        ),
        ("tls.cert_file", tls.cert_file, lambda path: _check_certificate(path, now)),
        ("tls.key_file", tls.key_file, lambda path: _check_key(path, tls.cert_file)),
        ("ops.token_file", ops.token_file, _check_tokens),
        ("ops.tls_cert_file", ops.tls_cert_file, lambda path: _check_certificate(path, now)),
        ("ops.tls_key_file", ops.tls_key_file, lambda path: _check_key(path, ops.tls_cert_file)),
        ("nats.credentials_file", nats.credentials_file, _check_nats_credentials),
        ("nats.tls_ca_file", nats.tls_ca_file, lambda path: _check_certificate(path, now)),
        ("nats.tls_cert_file", nats.tls_cert_file, lambda path: _check_certificate(path, now)),
        ("nats.tls_key_file", nats.tls_key_file, lambda path: _check_key(path, nats.tls_cert_file)),
        ("trace.headers_file", settings.trace.headers_file, _check_headers),
        ("events.file", settings.events.file, _check_events),
    ]
    for name, path, check in checks:
        if path is not None:
            try:
                check(path)
            except OSError as exc:
                yield f"{name}: {path}: {exc.strerror or exc}"
            except _Unusable as exc:
                yield f"{name}: {path}: {exc}"


def _check_jwks(path: Path, algorithms: tuple[str, ...]) -> None:
    try:
        KeySet.from_jwks(orjson.loads(path.read_bytes()), algorithms)
    except orjson.JSONDecodeError as exc:
        raise _Unusable(f"no JSON: {exc}") from None
    except KeySetError as exc:
        raise _Unusable(str(exc)) from None


def _check_certificate(path: Path, now: dt.datetime) -> None:
    data = path.read_bytes()
    try:
        certificates = x509.load_pem_x509_certificates(data)
    except ValueError:
        if b"PRIVATE KEY-----" in data:
            raise _Unusable("holds a private key; a certificate belongs here") from None
        raise _Unusable("holds no certificate in PEM form") from None
    for certificate in certificates:
        if certificate.not_valid_after_utc < now:
            raise _Unusable(f"expired on {certificate.not_valid_after_utc:%Y-%m-%d %H:%M} UTC")
        if certificate.not_valid_before_utc > now:
            raise _Unusable(f"is not valid before {certificate.not_valid_before_utc:%Y-%m-%d} UTC")


def _check_key(path: Path, cert_file: Path | None) -> None:
    data = path.read_bytes()
    try:
        key = serialization.load_pem_private_key(data, password=None)
    except TypeError:
        raise _Unusable("is protected by a passphrase, which nobody can enter; remove it") from None
    except ValueError:
        if b"BEGIN CERTIFICATE-----" in data:
            raise _Unusable("holds a certificate; the private key belongs here") from None
        raise _Unusable("holds no private key in PEM form") from None
    try:
        certificate = x509.load_pem_x509_certificates(cert_file.read_bytes() if cert_file else b"")
    except (ValueError, OSError):
        return  # the check of the certificate reports it
    form = (serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    if key.public_key().public_bytes(*form) != certificate[0].public_key().public_bytes(*form):
        raise _Unusable(f"is not the key of the certificate in {cert_file}")


def _check_headers(path: Path) -> None:
    try:
        parse_headers(path.read_text())
    except BadHeadersFile as exc:
        raise _Unusable(str(exc)) from None
    except UnicodeDecodeError:
        raise _Unusable("is no text in UTF-8") from None


def _check_tokens(path: Path) -> None:
    try:
        parse_tokens(path.read_text())
    except BadTokenFile as exc:
        raise _Unusable(str(exc)) from None
    except UnicodeDecodeError:
        raise _Unusable("is no text in UTF-8") from None


def _check_nats_credentials(path: Path) -> None:
    text = path.read_text(errors="replace")
    if _BEGIN_JWT not in text or _BEGIN_SEED not in text:
        raise _Unusable("holds no NATS user JWT and seed (as `nsc generate creds` writes them)")
    seed = text.split(_BEGIN_SEED)[1].split("---")[0].strip().encode()
    try:
        nkeys.from_seed(bytearray(seed))
    except (nkeys.NkeysError, ValueError, IndexError):
        raise _Unusable("its seed is damaged") from None


def _check_events(path: Path) -> None:
    """The whole file, and the schemas that it names."""
    try:
        section = read_events_file(path).schemas
        if section is not None:
            read_folder(section)
    except EventsError as exc:
        raise _Unusable(str(exc)) from exc


def _of_directory(path: Path) -> Iterator[str]:
    """The data directory or, if it does not exist, the closest directory above it."""
    existing = path.absolute()
    while not existing.exists() and existing != existing.parent:
        existing = existing.parent
    if not existing.is_dir():
        yield f"nats.data_dir: {path}: {existing} is no directory"
    elif not os.access(existing, os.W_OK | os.X_OK):
        yield f"nats.data_dir: {path}: {existing} cannot be written"


def _of_workers(settings: Settings) -> Iterator[str]:
    """What this machine lacks for several workers."""
    if settings.worker_count == 1:
        return
    try:
        check_descriptors(settings.server, settings.worker_count)
    except TooManyWorkers as exc:
        yield str(exc)
    if settings.cluster.redis_url is None:
        try:
            find_binary()
        except RedisNotStarted as exc:
            yield str(exc)


async def connection_problems(settings: Settings) -> list[str]:
    """The servers that the settings name and that cannot be reached right now, or refuse."""
    jwks, redis, nats = await asyncio.gather(
        _jwks_problem(settings), _redis_problem(settings), _nats_problems(settings)
    )
    return [problem for problem in (jwks, redis, *nats) if problem is not None]


async def _nats_problems(settings: Settings) -> list[str]:
    """Problems of operators' own NATS. The embedded server runs only while the gateway does."""
    if not settings.nats.urls:
        return []
    denials = Denials()
    try:
        address = in_time(nats_address(settings, Role.GATEWAY))
        client = await connect_once(address, name=_NAME, hooks=Hooks(denied=denials.add))
    except StreamError as exc:
        return [f"nats.urls: {exc}"]
    try:
        async with asyncio.timeout(_CONNECT_S):
            check_payload(client, settings.limits.message_bytes)
            await client.subscribe(PROBE)
            await client.flush()
            lacking = await missing_rights(client, denials)
    except TimeoutError:
        return [f"nats.urls: no answer in {_CONNECT_S:g} s"]
    except (StreamError, nats.errors.Error) as exc:
        return [f"nats.urls: {exc}"]
    finally:
        await client.discard()
    return [f"nats.urls: the user may not {right}" for right in lacking]


async def _redis_problem(settings: Settings) -> str | None:
    try:
        await _try_redis(settings)
    except RedisUnavailable as exc:
        return f"cluster.redis_url: {exc}"
    return None


async def _try_redis(settings: Settings) -> None:
    """
    Raises:
        RedisRefused: a password, a right or a certificate is wrong.
        RedisUnavailable: it does not answer.
    """
    cluster = settings.cluster
    if cluster.redis_url is None:
        return
    url = cluster.redis_url.get_secret_value()
    link = RedisLink(url, prefix=cluster.key_prefix, rng=random.Random())
    try:
        async with asyncio.timeout(_CONNECT_S):
            await link.open()
    except TimeoutError:
        raise RedisUnavailable("no_answer", f"in {_CONNECT_S:g} s") from None
    finally:
        await link.close()


async def _jwks_problem(settings: Settings) -> str | None:
    credentials = settings.credentials
    if credentials.jwks_url is None:
        return None
    source = KeySource(
        file=None,
        url=credentials.jwks_url,
        algorithms=credentials.algorithms,
        refresh_s=credentials.jwks_refresh_ms / 1000,
        rng=random.Random(),
    )
    try:
        async with asyncio.timeout(_CONNECT_S):
            await source.load()
    except TimeoutError:
        return f"credentials.jwks_url: {credentials.jwks_url}: no answer in {_CONNECT_S:g} s"
    except (KeyFetchError, KeySetError) as exc:
        return f"credentials.jwks_url: {exc}"
    return None
