"""The dashboards of Grafana and the metrics that exist, for tests of what operators see."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gateway.telemetry.sinks import SinkMetrics

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "config" / "grafana"
ALERTS = ROOT / "config" / "prometheus" / "alerts.yml"

_VARIABLES = {"$__rate_interval": "1m", "$instance": ".*", "$sink": ".*", "$rule": ".*"}
"""What Grafana puts in place of them; the last three where all are chosen."""


@dataclass(frozen=True)
class Query:
    """One query of a panel."""

    dashboard: str
    panel: str
    expression: str

    @property
    def filled(self) -> str:
        """The expression as Grafana would send it."""
        text = self.expression
        for name, value in _VARIABLES.items():
            text = text.replace(name, value)
        assert "$" not in text, f"{self}: a variable that is not filled"
        return text


def dashboards() -> dict[str, dict[str, Any]]:
    """By the name of their file."""
    return {file.stem: json.loads(file.read_text()) for file in sorted(FOLDER.glob("*.json"))}


def panels(dashboard: dict[str, Any]) -> list[dict[str, Any]]:
    """Those that show something."""
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


def queries() -> Iterator[Query]:
    """Of every panel of every dashboard."""
    for name, dashboard in dashboards().items():
        for panel in panels(dashboard):
            for target in panel["targets"]:
                yield Query(name, panel["title"], target["expr"])


def metrics_of_the_code() -> set[str]:
    """Every name that the code gives a metric, as Prometheus sees it."""
    names = set()
    for path in (ROOT / "gateway").rglob("*.py"):
        for name in re.findall(r'"(tidegate_\w+)"', path.read_text()):
            names |= {name, *(f"{name}_{part}" for part in ("total", "bucket", "sum", "count"))}
    for kind in ("sink", "rule"):
        consumers = SinkMetrics(kind)
        consumers.watch([], lambda: True)
        page = consumers.exposition()[0].decode()
        for name in re.findall(r"^# HELP (\w+)", page, re.MULTILINE):
            names |= {name, *(f"{name}_{part}" for part in ("bucket", "sum", "count"))}
    return names
