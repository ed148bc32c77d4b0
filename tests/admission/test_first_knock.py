"""The spread of first knocks grows with the fleet and shrinks with what can be refused."""

import pytest

from gateway.admission.first_knock import refusals_per_s, spread_ms


@pytest.mark.parametrize(
    ("least", "rate", "capacity"), [(1_000, 300, 1_000), (1_000, 500, 1_000), (1_000, 700, 1_400)]
)
def test_a_node_can_refuse_what_is_set_and_at_least_twice_what_it_admits(least, rate, capacity):
    assert refusals_per_s(least, rate) == capacity


@pytest.mark.parametrize(
    ("devices", "spread"), [(0, 2_000), (2_000, 2_000), (2_001, 2_001), (10_000, 10_000)]
)
def test_all_first_knocks_can_be_refused_in_their_spread(devices, spread):
    assert spread_ms(devices, 1_000, least_ms=2_000) == spread
