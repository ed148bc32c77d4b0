"""The alerts: promtool's own tests, metrics that exist, and a section of the runbook for each."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from support.dashboards import metrics_of_the_code

ROOT = Path(__file__).parents[2]
PROMETHEUS = ROOT / "config" / "prometheus"
ALERTS = (PROMETHEUS / "alerts.yml").read_text()
NAMES = re.findall(r"- alert: (\w+)", ALERTS)


@pytest.fixture(scope="module")
def promtool():
    found = shutil.which("promtool")
    if found is None:
        assert not os.environ.get("CI"), "promtool is missing: make debian"
        pytest.skip("promtool is missing, alerts are not tested: make debian")
    return found


@pytest.mark.parametrize(
    "arguments",
    [["check", "config", "prometheus.yml"], ["check", "rules", "alerts.yml"]],
)
def test_promtool_accepts_the_files(promtool, arguments):
    done = subprocess.run(
        [promtool, *arguments], cwd=PROMETHEUS, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def run_tests(promtool, directory):
    command = [promtool, "test", "rules", "alerts_test.yml"]
    return subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False)


def test_each_alert_fires_for_a_bad_node_and_not_for_a_good_one(promtool):
    done = run_tests(promtool, PROMETHEUS)
    assert done.returncode == 0, done.stdout + done.stderr
    tests = YAML(typ="safe").load(PROMETHEUS / "alerts_test.yml")["tests"]
    assert [each["alert_rule_test"][0]["alertname"] for each in tests] == NAMES
    for each in tests:
        series = " ".join(given["series"] for given in each["input_series"])
        assert '"bad"' in series, each["name"]
        assert '"good"' in series, each["name"]
        assert each["alert_rule_test"][0]["exp_alerts"], each["name"]


def test_an_alert_that_fires_for_a_good_node_is_found_out(promtool, tmp_path):
    yaml = YAML()
    page = yaml.load(PROMETHEUS / "alerts_test.yml")
    page["tests"] = [each for each in page["tests"] if each["name"] == "TidegateLoopLag"]
    yaml.dump(page, tmp_path / "alerts_test.yml")
    shutil.copy(PROMETHEUS / "alerts.yml", tmp_path)
    assert run_tests(promtool, tmp_path).returncode == 0
    (tmp_path / "alerts.yml").write_text(ALERTS.replace("> 0.2", "> 0.001"))
    done = run_tests(promtool, tmp_path)
    assert done.returncode != 0
    assert "TidegateLoopLag" in done.stdout + done.stderr


def test_every_metric_of_the_alerts_exists():
    assert set(re.findall(r"\btidegate_\w+", ALERTS)) <= metrics_of_the_code()


def test_every_alert_has_its_section_in_the_runbook():
    runbook = (ROOT / "config" / "RUNBOOK.md").read_text()
    assert re.findall(r"^## (\w+)$", runbook, re.MULTILINE) == NAMES
    links = re.findall(r"runbook: config/RUNBOOK.md#(\w+)", ALERTS)
    assert links == [name.lower() for name in NAMES]


def test_recorded_series_are_used_by_their_own_names():
    recorded = set(re.findall(r"record: (\S+)", ALERTS))
    used = set(re.findall(r"\btidegate:\w+:\w+", ALERTS))
    assert used <= recorded
