"""The dashboards: what every panel must have, and metrics, series and sections that exist."""

import re

import pytest
from ruamel.yaml import YAML

from support.dashboards import (
    ALERTS,
    FOLDER,
    ROOT,
    dashboards,
    metrics_of_the_code,
    panels,
    queries,
)

RUNBOOK = (ROOT / "config" / "RUNBOOK.md").read_text()
SECTIONS = {name.lower() for name in re.findall(r"^## (\w+)$", RUNBOOK, re.MULTILINE)}
DASHBOARDS = dashboards()
PANELS = [
    pytest.param(panel, id=f"{name}: {panel['title']}")
    for name, dashboard in DASHBOARDS.items()
    for panel in panels(dashboard)
]


def test_there_are_three_dashboards_with_names_of_their_own():
    assert sorted(DASHBOARDS) == ["events", "message", "storm"]
    assert {each["uid"] for each in DASHBOARDS.values()} == {f"tidegate-{n}" for n in DASHBOARDS}
    for dashboard in DASHBOARDS.values():
        numbers = [panel["id"] for panel in dashboard["panels"]]
        assert len(set(numbers)) == len(numbers)
        titles = [panel["title"] for panel in panels(dashboard)]
        assert len(set(titles)) == len(titles)


@pytest.mark.parametrize("name", DASHBOARDS)
def test_the_datasource_is_a_variable_and_the_runbook_a_link(name):
    dashboard = DASHBOARDS[name]
    variables = {each["name"]: each for each in dashboard["templating"]["list"]}
    assert variables["datasource"]["type"] == "datasource"
    assert variables["datasource"]["query"] == "prometheus"
    assert "${runbook}" in {link.get("url") for link in dashboard["links"]}
    text = (FOLDER / f"{name}.json").read_text()
    assert set(re.findall(r'"type": "prometheus", "uid": "([^"]*)"', text)) == {"${datasource}"}
    used = set(re.findall(r"\$\{?(?!__)(\w+)", text))
    assert used <= set(variables), "a variable that does not exist"


@pytest.mark.parametrize("panel", PANELS)
def test_a_panel_has_a_unit_a_description_thresholds_and_its_section_of_the_runbook(panel):
    shown = panel["fieldConfig"]["defaults"]
    assert shown["unit"]
    assert shown["thresholds"]["steps"][0]["value"] is None
    assert len(panel["description"].split()) >= 2
    assert panel["description"].endswith(".")
    links = [link["url"] for link in panel["links"]]
    assert all(link.removeprefix("${runbook}#") in SECTIONS for link in links), links
    assert all(target["legendFormat"] or panel["type"] == "stat" for target in panel["targets"])


def test_no_panel_lies_over_another():
    for name, dashboard in DASHBOARDS.items():
        taken = {}
        for panel in dashboard["panels"]:
            at = panel["gridPos"]
            assert at["x"] + at["w"] <= 24
            for x in range(at["x"], at["x"] + at["w"]):
                for y in range(at["y"], at["y"] + at["h"]):
                    assert taken.setdefault((x, y), panel["title"]) == panel["title"], name


def test_every_metric_and_recorded_series_of_a_panel_exists():
    known = metrics_of_the_code()
    recorded = set(re.findall(r"record: (\S+)", ALERTS.read_text()))
    for query in queries():
        names = set(re.findall(r"\btidegate_\w+", query.expression))
        assert names <= known, query
        assert set(re.findall(r"\btidegate:\w+:\w+", query.expression)) <= recorded, query


def test_every_recorded_series_is_shown_or_alarms():
    text = ALERTS.read_text()
    used = " ".join(query.expression for query in queries())
    used += " ".join(re.findall(r"expr: (.*)", text))
    recorded = re.findall(r"record: (\S+)", text)
    assert [name for name in recorded if name not in used] == []


def test_grafana_finds_the_dashboards_and_prometheus():
    read = YAML(typ="safe").load
    sources = read(FOLDER / "provisioning" / "datasources" / "prometheus.yml")["datasources"]
    assert [(each["type"], each["isDefault"]) for each in sources] == [("prometheus", True)]
    (provider,) = read(FOLDER / "provisioning" / "dashboards" / "tidegate.yml")["providers"]
    assert provider["type"] == "file"
    assert provider["options"]["path"] == "/var/lib/grafana/dashboards/tidegate"
