"""The table of operators in config/README.md says what the patterns do."""

import json
import re
from pathlib import Path

import pytest

from gateway.events.matching import compiled
from gateway.events.operators import OPERATORS
from gateway.events.patterns import parse_pattern

PAGE = Path(__file__).parents[2] / "config" / "README.md"
ROWS = re.findall(
    r"^\| ([^|]+) \| `(\{.*\})` \| `(.*)` \| `(.*)` \|$",
    PAGE.read_text().partition("### Patterns of rules")[2].partition("\n## ")[0],
    re.MULTILINE,
)


@pytest.mark.parametrize(("operator", "pattern", "matching", "other"), ROWS)
def test_a_row(operator, pattern, matching, other):
    del operator
    matches = compiled(parse_pattern(pattern))
    assert matches({"data": json.loads(matching)})
    assert not matches({"data": json.loads(other)})


def test_every_operator_has_a_row():
    for operator in OPERATORS:
        assert any(f"`{operator}`" in row[0] for row in ROWS), operator
