"""Finds what cannot work before anything starts, and before heavy packages are loaded."""

import argparse
import socket
from collections.abc import Sequence
from typing import Final
from urllib.parse import urlsplit

from loadtest.devices.limits import require_descriptors, require_ports
from loadtest.errors import ScenarioError, TargetError
from loadtest.lab.scenario import NEEDS_OUR_SERVERS, Scenario, load

_SPARE_DESCRIPTORS: Final = 500
_CONNECT_TIMEOUT_S: Final = 5.0


def checked_scenario(options: argparse.Namespace) -> Scenario:
    """The scenario, with what the options change in it, which this machine can perform.

    Raises:
        ScenarioError: the scenario does not exist, or cannot be used with these options.
        LimitError: this machine cannot hold so many devices.
        TargetError: an address is wrong, or nothing answers there.
    """
    scenario = _scenario(options)
    if options.url and scenario.fault in NEEDS_OUR_SERVERS:
        raise ScenarioError(
            f"{options.scenario} breaks servers, and those of --url are not ours to break; "
            "leave --url out"
        )
    knocking = round(scenario.devices / (1 - scenario.forged_share))
    require_descriptors(knocking + _SPARE_DESCRIPTORS)
    require_ports(knocking, scenario.nodes)
    _check_reachable(options.url)
    for url in options.ops_url:
        if not url.startswith(("http://", "https://")):
            raise TargetError(f"--ops-url {url}: must be http://HOST:PORT")
    if options.nats_url is not None:
        _check_nats(options.nats_url)
    return scenario


def _scenario(options: argparse.Namespace) -> Scenario:
    changed = {
        "devices": options.devices, "rate_per_s": options.rate, "policy": options.policy,
        "message_rate": options.message_rate, "tls": options.tls or None,
    }  # fmt: skip
    given = {key: value for key, value in changed.items() if value is not None}
    return load(options.scenario).model_copy(update=given)


def _check_reachable(urls: Sequence[str]) -> None:
    for url in urls:
        parts = urlsplit(url)
        if parts.scheme not in ("ws", "wss") or not parts.hostname:
            raise TargetError(f"--url {url}: must be ws://HOST:PORT/v1/device or wss://...")
        trouble = _refusal_of(parts.hostname, parts.port or (443 if parts.scheme == "wss" else 80))
        if trouble:
            raise TargetError(
                f"--url {url}: no gateway answers ({trouble}); start it: tidegate serve"
            )


def _check_nats(url: str) -> None:
    """The address may hold a password, so it is not repeated."""
    parts = urlsplit(url)
    if parts.scheme not in ("nats", "tls") or not parts.hostname:
        raise TargetError("--nats-url: must be nats://USER:PASSWORD@HOST:PORT or tls://...")
    port = parts.port or 4222
    if trouble := _refusal_of(parts.hostname, port):
        raise TargetError(
            f"--nats-url: no NATS answers on {parts.hostname} port {port} ({trouble})"
        )


def _refusal_of(host: str, port: int) -> str:
    """Why nothing accepts connections there, or the empty string."""
    try:
        socket.create_connection((host, port), timeout=_CONNECT_TIMEOUT_S).close()
    except OSError as exc:
        return exc.strerror or str(exc)
    return ""
