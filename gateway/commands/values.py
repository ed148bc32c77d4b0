"""The forms of values on a command line, read without the libraries of the commands. Pure."""

import json
from typing import Final, NoReturn

_UNITS_S: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def seconds_in(text: str) -> int | None:
    """A length of time like 90s, 10m, 2h or 1d; None if it is none."""
    if text[-1:] in _UNITS_S and text[:-1].isdecimal():
        return int(text[:-1]) * _UNITS_S[text[-1]]
    return None


def check_json(text: str) -> None:
    """
    Raises:
        ValueError: it is no JSON of RFC 8259.
        RecursionError: it nests too deep to be read.
    """
    json.loads(text, parse_constant=_no_constant)


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")
