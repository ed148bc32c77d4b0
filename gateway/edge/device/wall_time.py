"""The wall clock as text."""

import time
from functools import lru_cache
from typing import Final

_DIGITS: Final = tuple(f"{number:03}" for number in range(1_000))
"""Three digits of a fraction. To format them costs more than all the rest."""


def rfc3339_now() -> str:
    """The wall clock as RFC 3339 with microseconds."""
    now = time.time()  # a float is exact to a quarter of a microsecond until 2038
    seconds = int(now)
    milliseconds, microseconds = divmod(int((now - seconds) * 1_000_000), 1_000)
    return f"{_date_time(seconds)}.{_DIGITS[milliseconds]}{_DIGITS[microseconds]}Z"


@lru_cache(maxsize=2)
def _date_time(seconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
