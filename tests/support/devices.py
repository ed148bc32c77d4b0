"""A device of the reference client that reconnects quickly."""

import random

from support.gateways import token_for, url_of
from tidegate import BackoffSettings, Device, Environment

QUICK = BackoffSettings(first_retry_ms=20, base_ms=10, cap_ms=100, stable_ms=1_000)


def device_of(gateway, directory, name="veh-1", **options):
    return Device(
        url_of(gateway),
        options.pop("credential", None) or token_for(gateway, name),
        outbox=directory / f"{name}.outbox",
        backoff=QUICK,
        environment=Environment(rng=random.Random(1)),
        **options,
    )
