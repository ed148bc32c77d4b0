"""Vehicles for locust: `locust -f loadtest/locustfile.py --host ws://127.0.0.1:8080/v1/device`.

Rows: `connect` (a knock that was admitted), `refused <reason>`, `ticket honoured` (how late for its
slot), `ticket dishonoured` and `no answer` (failures), `ack` (from sending to the acknowledgement).
Message rate, policy and credentials are parameters of the web page. For a distributed run, each
worker needs the same key file.
"""

import functools
import itertools
import logging
import os
import random
import socket
from pathlib import Path
from typing import Any, Final

from locust import User, events, task

from loadtest.devices.credentials import Issuer
from loadtest.devices.gevent_link import Refused
from loadtest.devices.policies import POLICIES, make_policy
from loadtest.devices.vehicle import Vehicle, VehiclePlan
from loadtest.errors import TargetError

_log: Final = logging.getLogger(__name__)
_numbers: Final = itertools.count()
_here: Final = f"{socket.gethostname().replace('.', '-')[:24]}-{os.getpid()}"


@events.init_command_line_parser.add_listener  # type: ignore[untyped-decorator]
def _parameters(parser: Any) -> None:
    # On the parser itself: the web page shows no argument of a group.
    add = parser.add_argument
    add(
        "--policy", choices=POLICIES, default="ticket", env_var="TIDEGATE_POLICY",
        help="How vehicles come back after they lost their connection",
    )  # fmt: skip
    add(
        "--message-rate", type=float, default=0.1, env_var="TIDEGATE_MESSAGE_RATE",
        help="Messages a second, of each vehicle",
    )  # fmt: skip
    add(
        "--first-retry-ms", type=int, default=2_000, env_var="TIDEGATE_FIRST_RETRY_MS",
        help="First knocks are spread over this time until a gateway names another",
    )  # fmt: skip
    add(
        "--key-file", default=".tidegate/development-jwks.json", env_var="TIDEGATE_KEY_FILE",
        help="JWKS with the HMAC key that signs credentials",
    )  # fmt: skip


@events.init.add_listener  # type: ignore[untyped-decorator]
def _check(environment: Any, **_more: Any) -> None:
    """End with what is missing before anything starts."""
    options = environment.parsed_options
    if options is None or getattr(options, "master", False):
        return
    try:
        _issuer(options.key_file)
    except TargetError as exc:
        raise SystemExit(f"{exc}\nstart the gateway first (make run), or give --key-file") from None


@events.test_start.add_listener  # type: ignore[untyped-decorator]
def _check_again(environment: Any, **_more: Any) -> None:
    """Check the key file again: the web page may name another, or the key may have changed."""
    _issuer.cache_clear()
    options = environment.parsed_options
    if getattr(options, "master", False):
        return
    try:
        _issuer(options.key_file)
    except TargetError as exc:
        _log.error("%s", exc)  # the message says it all; a traceback would hide it
        environment.runner.quit()


@functools.cache
def _issuer(key_file: str) -> Issuer:
    """The issuer of all vehicles' credentials.

    Raises:
        TargetError: the file cannot be used.
    """
    return Issuer.of(Path(key_file))


class Rows:
    """What becomes of a vehicle, as rows of locust's statistics."""

    def __init__(self, environment: Any) -> None:
        self._fire = environment.events.request.fire

    def _row(self, kind: str, name: str, seconds: float, error: str | None = None) -> None:
        self._fire(
            request_type=kind, name=name, response_time=seconds * 1_000, response_length=0,
            exception=None if error is None else ConnectionError(error), context={},
        )  # fmt: skip

    def knocked(self) -> None:
        """Nothing: a knock is counted with its answer."""

    def welcomed(self, knocking_s: float, waited_s: float, late_s: float | None) -> None:
        self._row("knock", "connect", knocking_s)
        self._row("storm", "lost to welcome", waited_s)
        if late_s is not None:
            self._row("storm", "ticket honoured", late_s)

    def refused(self, refusal: Refused, knocking_s: float, *, dishonoured: bool) -> None:
        self._row("knock", f"refused {refusal.answer.reason}", knocking_s)
        if dishonoured:
            self._row("storm", "ticket dishonoured", knocking_s, str(refusal))

    def failed(self, why: str, knocking_s: float) -> None:
        self._row("knock", "no answer", knocking_s, why)

    def acked(self, latency_s: float) -> None:
        self._row("message", "ack", latency_s)

    def lost(self) -> None:
        self._row("storm", "session lost", 0.0)


class VehicleUser(User):
    """One vehicle a user."""

    def on_start(self) -> None:
        options = self.environment.parsed_options
        issuer = _issuer(options.key_file)
        assert self.host is not None
        name = f"veh-{_here}-{next(_numbers)}"
        rng = random.Random(name)
        self.vehicle = Vehicle(
            name,
            VehiclePlan(
                urls=self.host.split(","),
                token=lambda: issuer.token(name),
                policy=make_policy(options.policy, rng, first_retry_ms=int(options.first_retry_ms)),
                message_rate=float(options.message_rate),
                rng=rng,
            ),
            Rows(self.environment),
        )

    @task
    def drive(self) -> None:
        """Drive for as long as the test runs."""
        self.vehicle.run()
