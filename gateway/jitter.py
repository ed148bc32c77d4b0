"""Full jitter: how long to wait before the next attempt. Pure; a leaf that any room may import.

The wait is drawn uniformly below a ceiling that doubles with each failure in a row. Uniform waits
spread the retries of many nodes evenly, so a server that comes back meets no crowd
(https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/).
"""

import random
from typing import Final

_DOUBLINGS_MAX: Final = 16
"""Bounds the power of two: the ceiling's maximum is reached long before."""


def full_jitter_s(
    rng: random.Random, failures: int, *, first_s: float, max_s: float, least_s: float = 0.0
) -> float:
    """The seconds to wait after so many failures in a row.

    Args:
        rng: source of randomness.
        failures: failures in a row, so far.
        first_s: the ceiling for no failure; each failure doubles it.
        max_s: the highest ceiling.
        least_s: the shortest wait.
    """
    ceiling_s = min(max_s, first_s * 2.0 ** min(failures, _DOUBLINGS_MAX))
    return rng.uniform(least_s, ceiling_s)
