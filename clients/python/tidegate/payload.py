"""Encodes an application's value as the bytes of `data`, or refuses it with the reason.

A value that would arrive changed is refused: NaN and infinity (JSON has neither; codecs write null)
and bytes (codecs write base64, which is read back as a string). So is a value that is deeper or
larger than the gateway takes.
"""

import math
from collections.abc import Iterable
from typing import Any, Final

import msgspec

from tidegate.errors import Rejected

_BYTES: Final = (bytes, bytearray, memoryview)
_BYTES_KINDS: Final = frozenset(_BYTES)
_CONTAINERS: Final = frozenset((dict, list))
_HARMLESS: Final = frozenset((str, int, bool, type(None)))
_encode = msgspec.json.Encoder().encode


def encode_payload(data: Any, *, bytes_max: int, depth_max: int) -> bytes:
    """Encode `data`: JSON types, and dataclasses, datetimes and the like that have a JSON form.

    Raises:
        Rejected: `data` has no JSON form, or is larger or deeper than allowed.
    """
    try:
        plain = msgspec.to_builtins(data, builtin_types=_BYTES, str_keys=True)
        _check(plain, depth_max)
        encoded = _encode(plain)
    except (TypeError, ValueError, OverflowError) as exc:
        raise Rejected(f"data has no JSON form: {exc}") from None
    except RecursionError:
        raise Rejected(f"data is nested deeper than {depth_max} levels") from None
    if len(encoded) > bytes_max:
        raise Rejected(f"data is {len(encoded)} bytes, over {bytes_max}")
    return encoded


def _check(plain: Any, depth_max: int) -> None:
    """Check every value, level by level. In each container the types of the values come first."""
    level: list[Any] = [[plain]]
    depth = -1
    while level:
        depth += 1
        if depth > depth_max:
            raise Rejected(f"data is nested deeper than {depth_max} levels")
        inner: list[Any] = []
        for container in level:
            values = container.values() if type(container) is dict else container
            kinds = set(map(type, values)) - _HARMLESS
            if float in kinds:
                _check_floats(values)
            if kinds & _BYTES_KINDS:
                raise Rejected("data holds bytes, which JSON cannot express: use a string")
            if kinds & _CONTAINERS:
                inner.extend(each for each in values if type(each) in _CONTAINERS)
        level = inner


def _check_floats(values: Iterable[Any]) -> None:
    floats = [each for each in values if type(each) is float]
    if not all(map(math.isfinite, floats)):
        offender = next(each for each in floats if not math.isfinite(each))
        raise Rejected(f"data holds {offender}, which JSON cannot express")
