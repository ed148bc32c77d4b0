"""Shares of recent slots: who had few goes first, and the memory is bounded."""

import math

import pytest

from gateway.admission.fairness import FairShares


def test_who_had_little_is_underserved_and_who_is_alone_never():
    shares = FairShares()
    for n in range(100):
        assert not shares.underserved("t", "a", n / 10)
        shares.served("t", "a", 1.0, n / 10)
    assert shares.underserved("t", "b", 10.0)
    assert shares.underserved("u", "x", 10.0)
    for _ in range(120):
        shares.served("t", "b", 1.0, 10.0)
    assert not shares.underserved("t", "b", 10.0)


def test_what_was_long_ago_counts_no_more():
    shares = FairShares(fade_s=10.0)
    for _ in range(1_000):
        shares.served("t", "a", 1.0, 0.0)
    shares.served("t", "b", 1.0, 0.0)
    for _ in range(10):
        shares.served("t", "b", 1.0, 300.0)
    assert not shares.underserved("t", "b", 300.0)
    assert shares.underserved("t", "a", 300.0)


def test_names_are_bounded():
    shares = FairShares(names_max=50)
    for n in range(1_000):
        shares.served(f"t{n}", f"g{n}", 1.0, n / 100)
    assert len(shares._groups) <= 50
    assert len(shares._tenants._counts) <= 50


def counts_of(shares):
    return dict(shares._tenants._counts)


def total_is_right(shares):
    kept = [shares._tenants, *shares._groups.values()]
    return all(each._total == pytest.approx(sum(each._counts.values())) for each in kept)


def test_the_tenant_that_was_served_longest_ago_is_forgotten_first():
    shares = FairShares(names_max=2)
    for tenant in ("a", "b", "a", "c"):
        shares.served(tenant, "g", 1.0, 0.0)
    assert set(counts_of(shares)) == {"a", "c"}
    assert total_is_right(shares)


def test_what_is_forgotten_counts_no_more_in_the_total():
    shares = FairShares(names_max=3)
    for n in range(100):
        shares.served(f"t{n}", "g", float(n), n / 100)
        shares.served("t", f"g{n}", float(n), n / 100)
    assert total_is_right(shares)


def test_a_slot_weighs_more_by_a_factor_of_e_after_each_time_constant():
    shares = FairShares(fade_s=10.0)
    shares.served("a", "g", 2.0, 0.0)
    shares.served("b", "g", 2.0, 10.0)
    shares.served("c", "g", 4.0, 10.0)
    counts = counts_of(shares)
    assert counts["b"] / counts["a"] == pytest.approx(math.e)
    assert counts["c"] / counts["b"] == pytest.approx(2.0)


def test_after_a_long_time_counts_are_scaled_together_and_faint_ones_forgotten():
    shares = FairShares(fade_s=1.0)
    shares.served("faint", "g", 1.0, 0.0)
    shares.served("strong", "g", 1.0, 19.0)
    shares.served("strong", "g", 1.0, 21.0)
    counts = counts_of(shares)
    assert set(counts) == {"strong"}
    assert counts["strong"] == pytest.approx(1.0 + math.exp(-2.0))
    assert total_is_right(shares)
