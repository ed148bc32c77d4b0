"""The herd index tells arrivals that bunch from arrivals that are many."""

import random

from gateway.admission.herd import HerdIndex


def test_the_herd_index_tells_a_herd_from_a_crowd():
    rng, crowd, herd = random.Random(1), HerdIndex(), HerdIndex()
    for moment in sorted(rng.uniform(0, 60) for _ in range(60_000)):
        crowd.arrived(moment)
    for n in range(1_000):
        herd.arrived(30.0 + n / 100_000)
    assert 1 < crowd.value(60.0) < 2
    assert herd.value(60.0) > 500
    assert herd.value(200.0) == 0
