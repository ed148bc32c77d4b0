"""Shares of recent slots: a tenant or group that had few goes first, and memory is bounded."""

import math
import pickle

import pytest

from gateway.admission.fairness import FairShares


def test_a_group_that_had_little_is_underserved_and_a_single_one_never():
    shares = FairShares()
    for n in range(100):
        assert not shares.underserved("t", "a", n / 10)
        shares.served("t", "a", 1.0, n / 10)
    assert shares.underserved("t", "b", 10.0)
    assert shares.underserved("u", "x", 10.0)
    for _ in range(120):
        shares.served("t", "b", 1.0, 10.0)
    assert not shares.underserved("t", "b", 10.0)


def test_exactly_half_of_an_even_share_is_not_too_little():
    shares = FairShares()
    shares.served("a", "g", 3.0, 0.0)
    shares.served("b", "g", 1.0, 0.0)
    assert not shares.underserved("b", "g", 0.0)
    shares.served("a", "g", 0.25, 0.0)
    assert shares.underserved("b", "g", 0.0)


def test_slots_of_long_ago_do_not_count():
    shares = FairShares(fade_s=10.0)
    for _ in range(1_000):
        shares.served("t", "a", 1.0, 0.0)
    shares.served("t", "b", 1.0, 0.0)
    for _ in range(10):
        shares.served("t", "b", 1.0, 300.0)
    assert not shares.underserved("t", "b", 300.0)
    assert shares.underserved("t", "a", 300.0)


def test_names_are_bounded():
    """Those served longest ago are forgotten, and count as never served."""
    shares = FairShares(names_max=50)
    for n in range(1_000):
        shares.served(f"t{n}", "g", 1.0, 0.0)
    known = [n for n in range(1_000) if not shares.underserved(f"t{n}", "g", 0.0)]
    assert known == [*range(950, 1_000)]


def test_groups_of_a_tenant_are_bounded():
    shares = FairShares(names_max=50)
    for n in range(1_000):
        shares.served("t", f"g{n}", 1.0, 0.0)
    known = [n for n in range(1_000) if not shares.underserved("t", f"g{n}", 0.0)]
    assert known == [*range(950, 1_000)]


def test_its_memory_is_bounded():
    def size_after(count):
        shares = FairShares(names_max=50)
        for n in range(count):
            shares.served(f"t{n:06}", f"g{n:06}", 1.0, 0.0)
        return len(pickle.dumps(shares))

    assert size_after(2_000) <= size_after(100)


def test_a_tenant_that_is_served_again_is_not_forgotten_first():
    shares = FairShares(names_max=2)
    for tenant in ("a", "b", "a", "c"):
        shares.served(tenant, "g", 1.0, 0.0)
    assert [shares.underserved(tenant, "g", 0.0) for tenant in "abc"] == [False, True, False]


def test_what_is_forgotten_counts_no_more_in_the_total():
    shares = FairShares(names_max=2)
    for name, cost in (("a", 1_000.0), ("b", 1.0), ("c", 1.0)):
        shares.served(name, "g", cost, 0.0)
        shares.served("b", name, cost, 0.0)
    assert not shares.underserved("b", "b", 0.0)
    assert not shares.underserved("b", "c", 0.0)


def little_beside_one(shares, cost, now):
    """Whether a tenant that had one slot of this cost is underserved beside what is there."""
    shares.served("other", "g", cost, now)
    return shares.underserved("other", "g", now)


@pytest.mark.parametrize(("share", "little"), [(0.99, True), (1.01, False)])
def test_a_slot_weighs_more_by_a_factor_of_e_after_each_time_constant(share, little):
    """Of two tenants, the one with less than a third of the other's slots had little."""
    shares = FairShares(fade_s=10.0)
    shares.served("a", "g", 3.0 * math.e, 0.0)
    assert little_beside_one(shares, share, 10.0) is little


@pytest.mark.parametrize(("share", "little"), [(0.99, True), (1.01, False)])
def test_after_a_long_time_counts_are_scaled_together_and_faint_ones_forgotten(share, little):
    shares = FairShares(fade_s=1.0)
    shares.served("faint", "g", 1.0, 0.0)
    shares.served("strong", "g", 1.0, 19.0)
    shares.served("strong", "g", 1.0, 21.0)
    # With `faint` there were three names, and the limit would be another one.
    strong = 1.0 + math.exp(-2.0)
    assert little_beside_one(shares, share * strong / 3.0, 21.0) is little


def test_a_question_after_a_long_time_finds_nobody_remembered():
    shares = FairShares(fade_s=1.0)
    shares.served("large", "any", 100, 0.0)
    shares.served("small", "any", 1, 0.0)
    assert shares.underserved("small", "any", 1.0)
    assert not shares.underserved("small", "any", 1_000.0)
