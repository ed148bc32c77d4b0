"""No input costs a parser much more than a plain one of its size, and cost is linear.

The bound is twice and more of what is measured (`make bench-worst` judges it against what is
wanted), since other programs run beside the tests; CPU time is measured, in turns, the least of
several.
"""

import pytest

from support.strangers import PARSERS, costs_us, ratio_of

INPUTS = [
    pytest.param(parser, make, id=f"{parser.name}-{name}")
    for parser in PARSERS
    for name, make in parser.worst.items()
]


@pytest.mark.parametrize(("parser", "make"), INPUTS)
def test_the_worst_input_costs_little_more_than_a_plain_one(parser, make):
    ratio, plain_us, worst_us = ratio_of(parser, make(parser.size), 7)
    assert ratio < 50, f"{worst_us:.0f} us, plain {plain_us:.0f} us"


@pytest.mark.parametrize(("parser", "make"), INPUTS)
def test_four_times_the_size_costs_about_four_times_as_much(parser, make):
    _plain, small_us = costs_us(parser, make(parser.size // 4), 7)
    _plain, large_us = costs_us(parser, make(parser.size), 7)
    # Below 50 us it is all overhead.
    assert large_us < 10 * max(50, small_us)
