"""The wall clock as text."""

import time
from functools import lru_cache


def rfc3339_now() -> str:
    """The wall clock as RFC 3339 with microseconds."""
    seconds, nanoseconds = divmod(time.time_ns(), 1_000_000_000)
    return f"{_date_time(seconds)}.{nanoseconds // 1000:06d}Z"


@lru_cache(maxsize=2)
def _date_time(seconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
