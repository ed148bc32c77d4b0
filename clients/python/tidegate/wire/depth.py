"""How deep JSON nests, at the speed of whole-string operations.

A loop over brackets would make a hostile device's message cost a hundred times what a plain message
of its size costs. Here no step visits single brackets. Brackets are packed into chunks of one byte:
eight brackets, or, where strings must be cut out, four places that hold a bracket or nothing.
Tables say how far the depth rises over a chunk and how high it gets within it. The depth before
each chunk is a running sum, which is taken on many chunks at once as lanes of one large integer:
shifted by one lane and added, then by two, four, eight... (Hillis and Steele, 1986). Whether a
place is inside a string is the parity of the quotes before it, found in the same way with
exclusive or.
"""

from binascii import a2b_hex
from collections.abc import Sequence
from typing import Final

from msgspec import Raw

_OPENING: Final = b"[{"
_BETWEEN: Final = b"\xff"
"""No byte of any UTF-8 text (RFC 3629)."""
_NOT_OPENING_OR_BETWEEN: Final = bytes(set(range(256)) - set(_OPENING + _BETWEEN))
_QUOTE: Final = ord('"')
_NOT_BRACKETS_OR_QUOTES: Final = bytes(set(range(256)) - set(b'[]{}"'))
_AS_MARKS: Final = bytes(
    ord("2") if byte == _QUOTE else ord("1") if byte in _OPENING else ord("0")
    for byte in range(256)
)
"""An opening bracket is 1, a closing one 0, a quote 2."""
_PAIRS: Final = bytes.maketrans(b"\x00\x01\x10\x11", b"0123")
_FOURS: Final = bytes.maketrans(
    bytes(high << 4 | low for high in range(4) for low in range(4)), b"0123456789abcdef"
)
_LANE_BYTES: Final = 4
_LANE_BITS: Final = _LANE_BYTES * 8
_TOP: Final = 1 << _LANE_BITS - 1
_FLAG: Final = b"\x80"
_ONE: Final = (1).to_bytes(_LANE_BYTES, "big")
_CHUNK: Final = 8
"""Brackets in a chunk, at most."""
_FEW: Final = 256
"""Chunks up to which each has a lane of its own; of more, eight in a row share one."""


def _shape(steps: list[int]) -> tuple[int, int]:
    """How far the depth rises over these brackets, and how far at most within them."""
    depth = peak = 0
    for step in steps:
        depth += step
        peak = max(peak, depth)
    return depth, peak


_EIGHT_SHAPES: Final = [
    _shape([1 if byte >> bit & 1 else -1 for bit in range(7, -1, -1)]) for byte in range(256)
]
_FOUR_STEPS: Final = (-1, 1, 0, 0)
"""What a place of two bits stands for: a closing bracket, an opening one, and twice nothing."""
_FOUR_SHAPES: Final = [
    _shape([_FOUR_STEPS[byte >> bit & 3] for bit in (6, 4, 2, 0)]) for byte in range(256)
]
_SHAPES: Final = sorted({*_EIGHT_SHAPES, *_FOUR_SHAPES})
_EIGHTS_TO_SHAPES: Final = bytes(map(_SHAPES.index, _EIGHT_SHAPES))
_FOURS_TO_SHAPES: Final = bytes(map(_SHAPES.index, _FOUR_SHAPES))
_RISE: Final = bytes(rise + _CHUNK for rise, _peak in _SHAPES).ljust(256, b"\0")
_PEAK: Final = bytes(peak for _rise, peak in _SHAPES).ljust(256, b"\0")
_LEVEL: Final = bytes(place for place, (rise, _peak) in enumerate(_SHAPES) if not rise)
"""Chunks that end where they began."""
_LEVEL_PEAK: Final = max(_SHAPES[place][1] for place in _LEVEL)
_NOTHING: Final = bytes([_SHAPES.index((0, 0))])


def may_exceed(text: bytes, depth_max: int) -> bool:
    """Whether JSON `text` has enough brackets to nest deeper than `depth_max`: few messages do.

    `replace` ends its search after so many brackets, and jumps from one to the next. `count` would
    look at each byte.
    """
    most = depth_max + 1
    left = len(text.replace(b"{", b"", most)) + len(text.replace(b"[", b"", most))
    return 2 * len(text) - left > depth_max


def any_may_exceed(texts: Sequence[bytes | Raw], depth_max: int) -> bool:
    """Whether one of these JSON texts may nest deeper than `depth_max`, as `may_exceed` tells.

    All brackets are found in one pass, which costs less than half of a call for each text.

    Args:
        texts: UTF-8, so that none has the byte that is put between them here.
        depth_max: levels of arrays and objects.
    """
    opening = _BETWEEN.join(texts).translate(None, _NOT_OPENING_OR_BETWEEN)
    return len(opening) > depth_max and max(map(len, opening.split(_BETWEEN))) > depth_max


def json_depth_exceeds(text: bytes, depth_max: int) -> bool:
    """Whether JSON `text`, known to be valid, nests deeper than `depth_max`."""
    return may_exceed(text, depth_max) and bool(too_deep([text], depth_max))


def too_deep(texts: list[bytes], depth_max: int) -> list[int]:
    """Which of these nest deeper than `depth_max`: their places in the list.

    Args:
        texts: JSON that is known to be valid, of less than 128 MiB together.
        depth_max: levels of arrays and objects.
    """
    chunks = [_chunks(text) for text in texts]
    # Each text begins and ends at depth 0, so they can be looked at as one.
    together = b"".join(chunks)
    if depth_max > _LEVEL_PEAK:
        # Chunks that end at the depth where they began rise above it by a few levels at most. What
        # is wide and not deep consists of little else.
        rest = together.translate(None, _LEVEL)
        worth_it = len(rest) * 2 <= len(together)
        if worth_it and _FLAG not in _flags(rest, depth_max - _LEVEL_PEAK):
            return []
    flags = _flags(together, depth_max)
    if _FLAG not in flags:
        return []
    found, start = [], 0
    for place, part in enumerate(chunks):
        end = start + len(part)
        if flags.find(_FLAG, start, end) >= 0:
            found.append(place)
        start = end
    return found


def _chunks(text: bytes) -> bytes:
    """The shapes of the brackets of `text`, without those in strings."""
    if b"\\" in text:
        text = text.replace(b"\\\\", b"").replace(b'\\"', b"")
    marks = text.translate(_AS_MARKS, _NOT_BRACKETS_OR_QUOTES)
    if b"2" in marks:
        # Two quotes in a row, an empty string or two strings with nothing but a comma between
        # them, change nothing about what is outside of strings.
        marks = marks.replace(b"22", b"")
        if b"2" in marks:
            return _outside_strings(marks)
    pairs = a2b_hex(marks + b"10" * (-len(marks) % 8 // 2)).translate(_PAIRS)
    return a2b_hex(a2b_hex(pairs).translate(_FOURS)).translate(_EIGHTS_TO_SHAPES)


_MARK_PAIRS: Final = bytes.maketrans(
    bytes(high << 4 | low for high in range(3) for low in range(3)),
    bytes(b"0123456789abcdef"[high << 2 | low] for high in range(3) for low in range(3)),
)


def _outside_strings(marks: bytes) -> bytes:
    """The shapes of marks with quotes among them, four marks a chunk."""
    # Quotes fill up the last chunk: after the last string they stand for nothing.
    marks += b"2" * (-len(marks) % 4)
    packed = a2b_hex(a2b_hex(marks).translate(_MARK_PAIRS))
    places = int.from_bytes(packed, "big")
    quotes = places & int.from_bytes(b"\xaa" * len(packed), "big")
    inside = quotes
    shift = 2
    while shift < 8 * len(packed):
        inside ^= inside >> shift
        shift *= 2
    # A place that is inside of a string, or a quote, has its upper bit set: it is nothing.
    return (places | inside).to_bytes(len(packed), "big").translate(_FOURS_TO_SHAPES)


def _flags(chunks: bytes, depth_max: int) -> bytearray:
    """A byte for each of `chunks`: `_FLAG` where the depth is over `depth_max` within it."""
    step = 8 if len(chunks) > _FEW else 1
    count = -(-len(chunks) // step)
    chunks += _NOTHING * (count * step - len(chunks))
    flags = bytearray(len(chunks))
    rises = [_lanes(chunks[place::step].translate(_RISE)) for place in range(step)]
    ones = int.from_bytes(_ONE * count, "big")
    level = ones * _CHUNK
    depth = _before(sum(rises), count) - _before(level * step, count)
    over = ones * (_TOP - 1 - depth_max)
    tops = ones * _TOP
    for place in range(step):
        deep = (depth + _lanes(chunks[place::step].translate(_PEAK)) + over) & tops
        if deep:
            flags[place::step] = deep.to_bytes(_LANE_BYTES * count, "big")[::_LANE_BYTES]
        depth += rises[place]
        depth -= level
    return flags


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
