"""The documents for operators name every metric of a gateway, and say what it tells."""

import ast
import re
from pathlib import Path

from gateway.telemetry.metrics import Metrics

ROOT = Path(__file__).parents[2]


def made():
    """The metrics whose name stands where they are made. Those of sinks and rules are computed."""
    makers = {name for name in vars(Metrics) if not name.startswith("_")}
    for path in sorted((ROOT / "gateway").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            match node:
                case ast.Call(
                    ast.Attribute(_, maker) | ast.Name(maker), [ast.Constant(str(name)), *_]
                ):
                    if name.startswith("tidegate_") and maker in makers:
                        yield name.removesuffix("_total")


def test_each_metric_is_explained_to_operators():
    names = set(made())
    assert len(names) > 80, "metrics are not found where they are made"
    text = (ROOT / "config" / "README.md").read_text()
    told = {name.removesuffix("_total") for name in re.findall(r"tidegate_[a-z0-9_]+", text)}
    assert sorted(names - told) == []
