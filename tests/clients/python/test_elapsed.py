from hypothesis import given
from hypothesis import strategies as st

from tidegate.elapsed import CREDIBLE_MS, OutboxTime, Stamp, Uptime, stamp_now

WALLS = st.integers(-(10**12), 10**13)
PASSING = st.integers(0, 10**10)


@given(st.lists(st.tuples(PASSING, WALLS), min_size=1))
def test_within_a_boot_the_wall_clock_does_not_matter(steps):
    stamp = Stamp(7, "boot", 1_000, 0)
    now_ms = 1_000
    for passed_ms, wall_ms in steps:
        now_ms += passed_ms
        stamp = stamp_now(stamp, Uptime("boot", now_ms), wall_ms)
        assert stamp.outbox_ms == 7 + now_ms - 1_000


@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 10**10), WALLS)))
def test_the_outboxs_time_never_goes_back(steps):
    stamp = Stamp(0, "a", 0, CREDIBLE_MS)
    for boot, up_ms, wall_ms in steps:
        following = stamp_now(stamp, Uptime(boot, up_ms), wall_ms)
        assert following.outbox_ms >= stamp.outbox_ms
        stamp = following


def test_across_a_reboot_two_credible_wall_clock_readings_count():
    off = Stamp(100, "a", 5_000, CREDIBLE_MS)
    assert stamp_now(off, Uptime("b", 10), CREDIBLE_MS + 900).outbox_ms == 1_000
    assert stamp_now(off, Uptime("b", 10), CREDIBLE_MS - 900).outbox_ms == 100
    never_set = Stamp(100, "a", 5_000, 3_000)
    assert stamp_now(never_set, Uptime("b", 10), CREDIBLE_MS + 900).outbox_ms == 100


def test_an_outbox_counts_from_the_stamp_that_it_saved():
    up_ms = [5_000]
    time = OutboxTime(Stamp(100, "a", 4_000, 0), lambda: Uptime("a", up_ms[0]), lambda: 2.5)
    first = time.now()
    assert first == Stamp(1_100, "a", 5_000, 2_500)
    time.saved(first)
    up_ms[0] = 5_007
    assert time.now().outbox_ms == 1_107


def test_time_passes_after_a_reboot_although_no_wall_clock_was_set():
    up_ms, wall_s = [5_000], [0.0]
    last = Stamp(100, "a", 900_000, CREDIBLE_MS)
    time = OutboxTime(last, lambda: Uptime("b", up_ms[0]), lambda: wall_s[0])
    assert time.now().outbox_ms == 100
    up_ms[0] += 3_000
    assert time.now().outbox_ms == 3_100
    wall_s[0] = CREDIBLE_MS / 1_000 + 60  # now it is known how long the device was off
    assert time.now().outbox_ms == 60_100
    time.saved(time.now())
    up_ms[0] += 1_000
    wall_s[0] = 0.0
    assert time.now().outbox_ms == 61_100
