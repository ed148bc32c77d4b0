import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clients.backoff import BackoffSettings, ReconnectPolicy

SETTINGS = BackoffSettings(first_retry_ms=2_000, base_ms=500, cap_ms=60_000, stable_ms=30_000)


def policy(seed=1, settings=SETTINGS):
    return ReconnectPolicy(settings, random.Random(seed))


def test_the_first_attempt_is_uniform_over_what_the_gateway_said():
    delays = []
    for seed in range(2_000):
        fresh = policy(seed)
        fresh.told_first_retry(8_000)
        fresh.closed(connected_ms=60_000)
        delays.append(fresh.next_delay_ms())
    assert min(delays) >= 0
    assert max(delays) <= 8_000
    assert 3_800 < sum(delays) / len(delays) < 4_200


def test_failures_grow_to_the_cap_and_stay_spread_there():
    late = []
    for seed in range(500):
        failing = policy(seed)
        failing.next_delay_ms()
        for n in range(12):
            failing.failed()
            assert 0 <= failing.next_delay_ms() <= min(60_000, 500 * 2 ** (n + 1))
        failing.failed()
        late.append(failing.next_delay_ms())
    # Jitter is drawn after the cap: late attempts fill the whole interval.
    assert min(late) < 3_000
    assert max(late) > 57_000


@given(st.integers(0, 10_000_000), st.integers(0, 30), st.integers(0, 1_000))
def test_a_time_from_the_gateway_is_a_floor(retry_ms, failures, seed):
    device = policy(seed)
    for _ in range(failures):
        device.failed()
    device.refused(retry_ms, None)
    assert device.next_delay_ms() >= retry_ms


@given(st.integers(0, 10_000_000), st.integers(0, 1_000))
def test_a_ticket_is_kept_to_the_millisecond_and_shown(retry_ms, seed):
    device = policy(seed)
    device.refused(retry_ms, "ticket")
    assert device.failures == 0, "a slot is no failure"
    assert device.next_delay_ms() == retry_ms
    assert device.ticket == "ticket"
    device.opened()
    assert device.ticket is None


def test_a_floor_is_used_once():
    device = policy()
    device.refused(1_000_000, None)
    device.next_delay_ms()
    device.failed()
    assert device.next_delay_ms() < 60_001


def test_only_a_stable_connection_forgets_failures():
    device = policy()
    for _ in range(6):
        device.failed()
    device.opened()
    device.closed(connected_ms=100)
    assert device.failures == 7
    device.closed(connected_ms=30_000)
    assert device.failures == 0


def test_a_flapping_connection_backs_off():
    device = policy()
    device.next_delay_ms()
    for n in range(1, 8):
        device.opened()
        device.closed(connected_ms=50)
        assert device.failures == n
        device.next_delay_ms()


def test_a_goaway_names_the_slot():
    device = policy()
    device.sent_away(8_200, "t")
    device.closed(connected_ms=100_000)
    assert device.next_delay_ms() == 8_200
    assert device.ticket == "t"


@pytest.mark.parametrize("seed", range(3))
def test_one_seed_is_one_fate(seed):
    def run():
        device = policy(seed)
        fate = []
        for step in range(20):
            fate.append(device.next_delay_ms())
            device.failed() if step % 3 else device.refused(50, None)
        return fate

    assert run() == run()
