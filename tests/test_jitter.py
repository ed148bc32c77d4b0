import random

import pytest

from gateway.jitter import full_jitter_s


class Highest(random.Random):
    """Draws the highest value that is allowed."""

    def uniform(self, a, b):
        return b


@pytest.mark.parametrize(
    ("failures", "ceiling_s"), [(0, 0.1), (1, 0.2), (4, 1.6), (6, 5.0), (100_000, 5.0)]
)
def test_the_ceiling_doubles_with_each_failure_up_to_its_maximum(failures, ceiling_s):
    assert full_jitter_s(Highest(), failures, first_s=0.1, max_s=5.0) == ceiling_s


def test_the_waits_of_many_nodes_spread_over_the_whole_range():
    rng = random.Random(1)
    waits = [full_jitter_s(rng, 1, first_s=0.5, max_s=5.0, least_s=0.25) for _ in range(1_000)]
    assert 0.25 <= min(waits) < 0.26
    assert 0.99 < max(waits) <= 1.0
