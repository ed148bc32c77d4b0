"""No input costs a parser much more than a plain one of its size, and cost is linear.

`make bench-worst` judges the figures against what is wanted. The bound here is wider, since other
programs run beside the tests; CPU time is measured, in turns, the least of several, and of more of
them where a few are over the bound.
"""

import pytest

from support.strangers import PARSERS, costs_us, ratio_of

RATIO_MAX = 25
INPUTS = [
    pytest.param(parser, make, id=f"{parser.name}-{name}")
    for parser in PARSERS
    for name, make in parser.worst.items()
]


@pytest.mark.parametrize(("parser", "make"), INPUTS)
def test_the_worst_input_costs_little_more_than_a_plain_one(parser, make):
    text = make(parser.size)
    for rounds in (7, 30, 100):
        ratio, plain_us, worst_us = ratio_of(parser, text, rounds)
        if ratio < RATIO_MAX:
            break
    assert ratio < RATIO_MAX, f"{worst_us:.0f} us, plain {plain_us:.0f} us"


@pytest.mark.parametrize(("parser", "make"), INPUTS)
def test_four_times_the_size_costs_about_four_times_as_much(parser, make):
    _plain, small_us = costs_us(parser, make(parser.size // 4), 7)
    _plain, large_us = costs_us(parser, make(parser.size), 7)
    # Below 50 us it is all overhead.
    assert large_us < 10 * max(50, small_us)
