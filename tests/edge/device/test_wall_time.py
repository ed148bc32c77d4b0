"""The wall clock as text."""

import random
import time
from datetime import datetime

import pytest

from gateway.edge.device.wall_time import rfc3339_now
from tidegate.wire.grammar import is_timestamp


@pytest.mark.parametrize(
    ("now", "text"),
    [
        (1_764_161_937.0, "2025-11-26T12:58:57.000000Z"),
        (1_764_161_937.5, "2025-11-26T12:58:57.500000Z"),
        (1_764_161_937.000001, "2025-11-26T12:58:57.000000Z"),  # the float is below it
        (1_764_161_937.9999998, "2025-11-26T12:58:57.999999Z"),  # the last float of its second
        (1_764_161_938.0, "2025-11-26T12:58:58.000000Z"),
    ],
)
def test_the_time_is_cut_to_a_microsecond(monkeypatch, now, text):
    monkeypatch.setattr(time, "time", lambda: now)
    assert rfc3339_now() == text


def test_every_time_is_a_timestamp_within_a_microsecond(monkeypatch):
    rng = random.Random(7)
    for _ in range(1_000):
        now = rng.uniform(1.7e9, 2.1e9)
        monkeypatch.setattr(time, "time", lambda now=now: now)
        text = rfc3339_now()
        assert is_timestamp(text)
        assert abs(datetime.fromisoformat(text).timestamp() - now) < 2e-6
