import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.backoff import BackoffSettings, ReconnectPolicy

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
            assert 0 <= failing.next_delay_ms() <= max(2_000, min(60_000, 500 * 2 ** (n + 1)))
        failing.failed()
        late.append(failing.next_delay_ms())
    # Jitter is drawn after the cap: late attempts fill the whole interval.
    assert min(late) < 3_000
    assert max(late) > 57_000


def test_a_failure_is_never_spread_over_less_than_the_fleet_needs():
    waits = []
    for seed in range(500):
        failing = policy(seed)
        failing.told_first_retry(90_000)
        failing.next_delay_ms()
        failing.failed()
        waits.append(failing.next_delay_ms())
    assert max(waits) > 80_000


def test_silence_counts_as_a_restart_at_first_and_as_failure_later():
    for seed in range(200):
        device = policy(seed)
        device.told_first_retry(4_000)
        device.next_delay_ms()
        silence_ms = 0.0
        while True:
            device.silent()
            wait_ms = device.next_delay_ms()
            if silence_ms >= SETTINGS.restart_ms:
                break
            assert 2_000 <= wait_ms <= 6_000, "half to one and a half of first_retry_ms"
            assert device.failures == 0
            silence_ms += wait_ms
        assert device.failures == 1
        for _ in range(12):
            device.silent()
            device.next_delay_ms()
        assert device.failures == 13


def test_the_duration_of_attempts_counts_as_silence():
    device = policy()
    for _ in range(3):
        device.silent(lasted_ms=20_000)
        device.next_delay_ms()
    assert device.failures == 1


def test_a_device_with_a_ticket_asks_again_sooner():
    waits = []
    for seed in range(200):
        device = policy(seed)
        device.told_first_retry(10_000)
        device.refused(100, "ticket")
        device.next_delay_ms()
        device.silent()
        waits.append(device.next_delay_ms())
        assert device.ticket == "ticket"
        for _ in range(4):
            device.silent()
        assert 5_000 <= device.next_delay_ms() <= 15_000, "but not for ever"
    assert 900 < max(waits) <= 1_000, "spread over the time, and not all at its beginning"


@pytest.mark.parametrize("answer", [ReconnectPolicy.opened, lambda each: each.refused(5, "slot")])
def test_an_answer_ends_the_silence(answer):
    device = policy()
    device.silent(lasted_ms=59_000)
    device.next_delay_ms()
    answer(device)
    device.silent(lasted_ms=59_000)
    assert device.failures == 0


def test_after_failures_silence_is_no_excuse_to_come_sooner_or_later():
    waits = []
    for seed in range(500):
        device = policy(seed)
        for _ in range(10):
            device.failed()
        device.silent()
        waits.append(device.next_delay_ms())
    assert min(waits) < 3_000
    assert 57_000 < max(waits) <= 60_000


@pytest.mark.parametrize("known_at_s", [0.5, 5.0, 10.0])
def test_a_fleet_is_back_soon_after_the_gateway_learns_a_key_late(known_at_s):
    for seed in range(300):
        device, now_s, knocks = policy(seed), 0.0, 1
        device.next_delay_ms()
        while now_s < known_at_s:
            device.distrusted()
            now_s += device.next_delay_ms() / 1_000
            knocks += 1
        assert now_s <= known_at_s + 3
        assert knocks <= 2 + known_at_s
        assert device.failures == knocks - 1, "each counts"


def test_a_credential_that_is_refused_for_good_backs_off():
    late = []
    for seed in range(300):
        device, now_s = policy(seed), 0.0
        while now_s < 30:
            device.distrusted()
            now_s += device.next_delay_ms() / 1_000
        device.distrusted()
        late.append(device.next_delay_ms())
    assert max(late) > 55_000
    assert 25_000 < sum(late) / len(late) < 35_000


def test_other_failures_do_not_wait_as_for_a_key():
    waits = []
    for seed in range(200):
        device = policy(seed)
        for _ in range(8):
            device.distrusted()
        device.failed()
        waits.append(device.next_delay_ms())
    assert max(waits) > 55_000


def test_a_connection_that_the_device_ends_itself_is_no_failure():
    device = policy()
    device.next_delay_ms()
    device.opened()
    device.moved_on()
    assert device.next_delay_ms() <= 2_000
    assert device.failures == 0


@pytest.mark.parametrize("told", [10**400, -(10**400), 86_400_001])
def test_no_time_of_a_peer_is_beyond_a_day(told):
    device = policy()
    device.told_first_retry(told)
    assert 0 <= device.next_delay_ms() <= 86_400_000
    device.refused(told, "ticket")
    assert 0 <= device.next_delay_ms() <= 86_400_000
    device.sent_away(told, "ticket")
    assert 0 <= device.next_delay_ms() <= 86_400_000


@given(st.integers(0, 10_000_000), st.integers(0, 30), st.integers(0, 1_000))
def test_a_time_from_the_gateway_is_a_floor(retry_ms, failures, seed):
    device = policy(seed)
    for _ in range(failures):
        device.failed()
    device.refused(retry_ms, None)
    assert device.next_delay_ms() >= retry_ms


@pytest.mark.parametrize(
    ("retry_ms", "first_retry_ms", "latest_ms"),
    [
        (900_000, 1_000_000, 1_125_000),
        (450_000, 1_000_000, 1_000_000),
        (900_000, 5_000, 905_000),
        (10_000, 2_000, 12_000),
        (100, 2_000, 2_000),
    ],
)
def test_a_device_without_a_slot_is_not_spread_a_second_time(retry_ms, first_retry_ms, latest_ms):
    """By whole `first_retry_ms`, after which slots of the calendar would have passed unused."""
    waits = []
    for seed in range(200):
        device = policy(seed)
        device.told_first_retry(first_retry_ms)
        device.refused(retry_ms, None)
        waits.append(device.next_delay_ms())
    assert retry_ms <= min(waits)
    assert latest_ms * 0.97 <= max(waits) <= latest_ms


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
def test_the_same_seed_gives_the_same_waits(seed):
    def run():
        device = policy(seed)
        fate = []
        for step in range(20):
            fate.append(device.next_delay_ms())
            device.failed() if step % 3 else device.refused(50, None)
        return fate

    assert run() == run()


def test_a_connection_after_a_slot_that_breaks_early_costs_one_spread_attempt_and_then_backoff():
    device = policy()
    device.closed(connected_ms=60_000)
    device.sent_away(100, "slot")
    assert device.has_floor
    assert device.next_delay_ms() == 100
    assert not device.has_floor
    device.opened()
    device.closed(connected_ms=1_000)
    assert device.failures == 1
    assert device.next_delay_ms() <= 2_000
    device.opened()
    device.closed(connected_ms=1_000)
    assert device.failures == 2
