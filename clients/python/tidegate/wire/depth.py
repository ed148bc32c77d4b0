"""How deep JSON nests, at the speed of whole-string operations.

A loop over brackets would cost a hostile device's message a hundred times what a plain one of its
size costs. Here no step visits single brackets: strings are cut out by splitting at quotes, and the
remaining brackets become bits (1 opens, 0 closes), eight of them a byte. Tables say of each byte
how many it opens and how far the depth rises within it. The depth before each byte is a running
sum, taken on many bytes at once as lanes of one large integer: shifted by one lane and added, then
by two, four, eight... (Hillis and Steele, 1986).
"""

from binascii import a2b_hex
from typing import Final

_OPENING: Final = b"[{"
_NOT_BRACKETS_OR_QUOTES: Final = bytes(set(range(256)) - set(b'[]{}"'))
_QUOTE: Final = ord('"')
_AS_BITS: Final = bytes(
    byte if byte == _QUOTE else ord("1") if byte in _OPENING else ord("0") for byte in range(256)
)
_PAIRS: Final = bytes.maketrans(b"\x00\x01\x10\x11", b"0123")
_FOURS: Final = bytes.maketrans(
    bytes(high << 4 | low for high in range(4) for low in range(4)), b"0123456789abcdef"
)
_LANE_BYTES: Final = 4
_LANE_BITS: Final = _LANE_BYTES * 8
_TOP: Final = 1 << _LANE_BITS - 1
_FLAG: Final = b"\x80"
_ONE: Final = (1).to_bytes(_LANE_BYTES, "big")
_FEW: Final = 256
"""Bytes of bits up to which each has a lane of its own; of more, eight in a row share one."""


def _peak(byte: int) -> int:
    """How far above its start the depth rises within these eight brackets, at least 0."""
    depth = peak = 0
    for bit in range(7, -1, -1):
        depth += 1 if byte >> bit & 1 else -1
        peak = max(peak, depth)
    return peak


_OPENED: Final = bytes(byte.bit_count() for byte in range(256))
_PEAK: Final = bytes(_peak(byte) for byte in range(256))


def may_exceed(text: bytes, depth_max: int) -> bool:
    """Whether JSON `text` has enough brackets to nest deeper than `depth_max`: few messages do."""
    return text.count(b"{") + text.count(b"[") > depth_max


def json_depth_exceeds(text: bytes, depth_max: int) -> bool:
    """Whether JSON `text`, known to be valid, nests deeper than `depth_max`."""
    return may_exceed(text, depth_max) and bool(too_deep([text], depth_max))


def too_deep(texts: list[bytes], depth_max: int) -> list[int]:
    """Which of these nest deeper than `depth_max`: their places in the list.

    Args:
        texts: JSON that is known to be valid, of less than 128 MiB together.
        depth_max: levels of arrays and objects.
    """
    eights = [_eights(_bits(text)) for text in texts]
    # Each begins and ends on the ground, so they can be looked at as one.
    flags = _flags(b"".join(eights), depth_max)
    if _FLAG not in flags:
        return []
    found, start = [], 0
    for place, bits in enumerate(eights):
        end = start + len(bits)
        if flags.find(_FLAG, start, end) >= 0:
            found.append(place)
        start = end
    return found


def _bits(text: bytes) -> bytes:
    """The brackets of `text`, without those in strings, as digits: 1 opens, 0 closes."""
    if b"\\" in text:
        text = text.replace(b"\\\\", b"").replace(b'\\"', b"")
    marks = text.translate(_AS_BITS, _NOT_BRACKETS_OR_QUOTES)
    if b'"' not in marks:
        return marks
    # Two quotes in a row, an empty string or two strings with nothing but a comma between them,
    # change nothing about what is outside of strings.
    return b"".join(marks.replace(b'""', b"").split(b'"')[::2])


def _flags(eights: bytes, depth_max: int) -> bytearray:
    """A byte for each of `eights`: `_FLAG` where the depth is over `depth_max` within it."""
    step = 8 if len(eights) > _FEW else 1
    count = -(-len(eights) // step)
    # Brackets that rise no higher than 1 above the ground fill up the last lane.
    eights += b"\xaa" * (count * step - len(eights))
    opened = [_lanes(eights[place::step].translate(_OPENED)) for place in range(step)]
    ones = int.from_bytes(_ONE * count, "big")
    depth = _before(sum(opened), count) * 2 - _before(ones * (8 * step), count)
    over = ones * (_TOP - 1 - depth_max)
    tops = ones * _TOP
    flags = bytearray(len(eights))
    for place in range(step):
        deep = (depth + _lanes(eights[place::step].translate(_PEAK)) + over) & tops
        if deep:
            flags[place::step] = deep.to_bytes(_LANE_BYTES * count, "big")[::_LANE_BYTES]
        depth += opened[place] * 2
        depth -= ones * 8
    return flags


def _eights(bits: bytes) -> bytes:
    """Eight digits a byte. Hexadecimal ones are the fastest way to pack them."""
    pairs = a2b_hex(bits + b"10" * (-len(bits) % 8 // 2)).translate(_PAIRS)
    return a2b_hex(a2b_hex(pairs).translate(_FOURS))


def _lanes(values: bytes) -> int:
    """Small numbers side by side in one integer, the first of them highest."""
    lanes = bytearray(_LANE_BYTES * len(values))
    lanes[_LANE_BYTES - 1 :: _LANE_BYTES] = values
    return int.from_bytes(lanes, "big")


def _before(lanes: int, count: int) -> int:
    """In each of `count` lanes the sum of those before it."""
    sums = lanes >> _LANE_BITS
    shift = _LANE_BITS
    while shift < _LANE_BITS * count:
        sums += sums >> shift
        shift *= 2
    return sums
