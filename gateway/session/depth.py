"""How deep JSON nests, at the speed of whole-string operations.

A loop over brackets would cost a hostile device's message a hundred times what a plain one of its
size costs. Here no step visits single brackets: strings are cut out by splitting at quotes, the
remaining brackets become bits (1 opens, 0 closes), eight of them a byte, and tables say of each
byte how it changes the depth and how far it rises within. The depth before each byte is a running
sum, taken on all bytes at once as lanes of one large integer: shifted by one lane and added, then
by two, four, eight... (Hillis and Steele, 1986).
"""

from typing import Final

_BITS: Final = 8
_OPENING: Final = b"[{"
_BRACKETS: Final = b"[]{}"
_NOT_BRACKETS_OR_QUOTES: Final = bytes(set(range(256)) - set(_BRACKETS) - set(b'"'))
_AS_DIGITS: Final = bytes(ord("1") if byte in _OPENING else ord("0") for byte in range(256))


def _peak(byte: int) -> int:
    """How far above its start the depth rises within these eight brackets, at least 0."""
    depth = peak = 0
    for bit in range(_BITS - 1, -1, -1):
        depth += 1 if byte >> bit & 1 else -1
        peak = max(peak, depth)
    return peak


_OPENED: Final = bytes(byte.bit_count() for byte in range(256))
_CLOSED: Final = bytes(_BITS - byte.bit_count() for byte in range(256))
_PEAK: Final = bytes(_peak(byte) for byte in range(256))


def json_depth_exceeds(text: bytes, depth_max: int) -> bool:
    """Whether JSON `text` nests deeper than `depth_max`.

    Args:
        text: already known to be valid.
        depth_max: levels of arrays and objects, fewer than 32,768.
    """
    # Nearly every message has fewer brackets than it may have levels.
    if text.count(b"{") + text.count(b"[") <= depth_max:
        return False
    return _deeper(_brackets(text), depth_max)


def _brackets(text: bytes) -> bytes:
    """The brackets of `text`, without those in strings."""
    if b"\\" in text:
        text = text.replace(b"\\\\", b"").replace(b'\\"', b"")
    marks = text.translate(None, _NOT_BRACKETS_OR_QUOTES)
    # Two quotes in a row, an empty string or two strings with nothing but a comma between them,
    # change nothing about what is outside of strings.
    return b"".join(marks.replace(b'""', b"").split(b'"')[::2])


def _deeper(brackets: bytes, depth_max: int) -> bool:
    if not brackets:
        return False
    brackets += b"[]" * (-len(brackets) % _BITS // 2)
    count = len(brackets) // _BITS
    eights = int(brackets.translate(_AS_DIGITS), 2).to_bytes(count, "big")
    # Each lane holds the brackets opened so far, or the depth and a top bit for the comparison.
    width = 2 if len(brackets) < 2**16 else 4
    lanes = _Lanes(width, count)
    after = lanes.sums(eights.translate(_OPENED)) - lanes.sums(eights.translate(_CLOSED))
    before = after >> width * 8
    peaks = before + lanes.of(eights.translate(_PEAK))
    ones = lanes.of(b"\1" * count)
    top = 1 << width * 8 - 1
    return bool((peaks + ones * (top - 1 - depth_max)) & ones * top)


class _Lanes:
    """Small numbers side by side in one integer, the first of them highest."""

    def __init__(self, width: int, count: int) -> None:
        """
        Args:
            width: bytes of a lane.
            count: lanes.
        """
        self._width = width
        self._count = count

    def of(self, values: bytes) -> int:
        lanes = bytearray(self._width * self._count)
        lanes[self._width - 1 :: self._width] = values
        return int.from_bytes(lanes, "big")

    def sums(self, values: bytes) -> int:
        """In each lane the sum of the values up to and including its own."""
        sums = self.of(values)
        shift, end = self._width * 8, self._width * 8 * self._count
        while shift < end:
            sums += sums >> shift
            shift *= 2
        return sums
