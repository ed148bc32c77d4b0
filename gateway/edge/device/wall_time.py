"""The wall clock as text."""

import time
from functools import lru_cache


def rfc3339_now() -> str:
    """The wall clock as RFC 3339 with microseconds."""
    now = time.time()  # a float is exact to a quarter of a microsecond until 2106
    seconds = int(now)
    return f"{_date_time(seconds)}.{int((now - seconds) * 1_000_000):06}Z"


@lru_cache(maxsize=2)
def _date_time(seconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
