import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.values import JSON
from tidegate.wire.depth import any_may_exceed, json_depth_exceeds, may_exceed, too_deep


def _depth(value):
    if isinstance(value, list):
        return 1 + max(map(_depth, value), default=0)
    if isinstance(value, dict):
        return 1 + max(map(_depth, value.values()), default=0)
    return 0


@given(JSON, st.integers(1, 6), st.booleans())
def test_depth_is_counted_as_a_parser_would(value, limit, ascii_only):
    text = json.dumps(value, ensure_ascii=ascii_only)
    assert json_depth_exceeds(text.encode(), limit) == (_depth(value) > limit)


@given(st.text(alphabet='[]{}"\\', max_size=30), st.integers(1, 3))
def test_brackets_inside_strings_do_not_count(text, limit):
    assert not json_depth_exceeds(json.dumps([text]).encode(), limit)


@pytest.mark.parametrize("limit", [1, 32, 255])
def test_a_limit_is_inclusive(limit):
    at = b"[" * limit + b"]" * limit
    assert not json_depth_exceeds(at, limit)
    assert json_depth_exceeds(b"[" + at + b"]", limit)


def _naive(brackets):
    depth = peak = 0
    for bracket in brackets:
        depth += 1 if bracket in b"[{" else -1
        peak = max(peak, depth)
    return peak


@pytest.mark.parametrize("pairs", [32_760, 32_764, 32_765, 32_767, 32_768, 32_769, 40_000])
@pytest.mark.parametrize("shape", ["deep", "flat", "comb", "stairs"])
def test_large_shapes_are_counted_exactly(pairs, shape):
    if shape == "deep":
        text = b"[" * pairs + b"]" * pairs
    elif shape == "flat":
        text = b"[" + b"{}" * (pairs - 1) + b"]"
    elif shape == "comb":
        text = b"[" + (b"[" * 40 + b"]" * 40) * (pairs // 40) + b"]"
    else:
        text = b"".join(b"[" * step + b"]" * step for step in range(1, 240))
    peak = _naive(text)
    for limit in {1, 2, 32, 255, peak - 1, peak, peak + 1}:
        if 1 <= limit < 2**15:
            assert json_depth_exceeds(text, limit) == (peak > limit)


@given(st.lists(JSON, max_size=30), st.integers(1, 4))
def test_many_texts_are_checked_together_and_told_apart(values, limit):
    texts = [json.dumps(value).encode() for value in values]
    expected = [place for place, value in enumerate(values) if _depth(value) > limit]
    assert too_deep(texts, limit) == expected


@given(st.lists(JSON, min_size=1, max_size=30), st.integers(1, 4))
def test_a_quick_look_at_many_texts_sees_no_less_than_a_look_at_each(values, limit):
    texts = [json.dumps(value, ensure_ascii=False).encode() for value in values]
    assert any_may_exceed(texts, limit) == any(may_exceed(text, limit) for text in texts)
    assert any_may_exceed(texts, limit) or not too_deep(texts, limit)


@pytest.mark.parametrize("limit", [1, 32])
def test_brackets_of_other_texts_are_not_counted(limit):
    full = b"[" * limit + b"]" * limit
    assert not any_may_exceed([full] * 100, limit)
    assert any_may_exceed([full] * 50 + [b"[%b]" % full] + [full] * 50, limit)


def test_among_many_large_ones_the_deep_are_found():
    shallow, deep = b"[" + b"[[]]," * 700 + b"0]", b"[" + b"[[[]]]," * 200 + b"0]"
    texts = [deep if place in (0, 7, 8, 99) else shallow for place in range(100)]
    assert too_deep(texts, 3) == [0, 7, 8, 99]
    assert too_deep(texts, 4) == []
    assert too_deep([], 1) == []


@given(
    st.lists(
        st.sampled_from(["[],", '["["],', '"]",', '"\\"[",', "[[],[]],", '{"{":[1]},', "1,"]),
        max_size=40,
    ),
    st.integers(0, 40),
    st.integers(1, 60),
)
def test_what_is_wide_and_level_is_counted_at_any_depth(parts, below, repeats):
    """Chunks that end where they began are left out at first, and count near the limit."""
    wide = "".join(parts) * repeats
    text = "[" * below + "[" + wide + "0]" + "]" * below
    depth = _depth(json.loads(text))
    for limit in {max(1, depth - 1), depth, depth + 1, 32}:
        assert json_depth_exceeds(text.encode(), limit) == (depth > limit)
