"""The worked examples: their files are right, and each does what its page promises, and ends."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from gateway.events.document import read_events_file
from gateway.events.explaining import first_failure
from gateway.events.linting import never

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "config" / "examples"


def matching(file, event):
    rules = read_events_file(EXAMPLES / file).rules
    assert not list(never(rules, None))
    return [rule.name for rule in rules if first_failure(rule.when, event) is None]


def result(**data):
    return {"tenant": "default", "device": "analyser-1", "type": "lab.result", "data": data}


@pytest.mark.parametrize(
    ("data", "rules"),
    [
        ({"flag": "critical", "ordered_by": "d-4"}, ["alert-ward", "doctor"]),
        ({"flag": "critical"}, ["alert-ward"]),
        ({"ordered_by": "d-4"}, ["doctor"]),
        ({"flag": "normal"}, []),
    ],
)
def test_a_result_finds_its_readers_by_what_it_says(data, rules):
    assert matching("lab-result/events.toml", result(**data)) == rules


def test_the_registry_takes_infections_alone():
    registry = "lab-result/registry.toml"
    assert matching(registry, result(analyte="PCR measles", value="positive")) == ["registry"]
    assert matching(registry, result(analyte="PCR measles", value="negative")) == []
    assert matching(registry, result(analyte="K", value="positive")) == []


def test_the_driver_is_alerted_of_a_low_battery_alone():
    low = {"tenant": "default", "device": "veh-1", "type": "battery.low", "data": {"soc": 9}}
    assert matching("battery-low/events.toml", low) == ["alert-driver"]
    assert matching("battery-low/events.toml", low | {"data": {"soc": 80}}) == []


def ran(example):
    """What an example printed."""
    done = subprocess.run(
        [sys.executable, EXAMPLES / example / "run.py"],
        env=os.environ | {"PYTHONPATH": str(EXAMPLES)},
        check=False, cwd=ROOT, capture_output=True, text=True, timeout=180,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.long
def test_a_battery_is_low():
    assert "three consumers, none knew the others" in ran("battery-low")


@pytest.mark.long
def test_the_trace_of_a_message_goes_from_the_device_to_the_sink():
    printed = ran("trace")
    _, first, second = printed.split("\ntrace ")
    for trace in (first, second):
        names = [line.split()[:3] for line in trace.splitlines()[1:6]]
        assert names[0] == ["veh-1", "tidegate", "send"]
        assert names[1] == ["tidegate-gateway", "tidegate", "message"]
        assert names[2] == ["linked", "to", "tidegate"]
        assert "tidegate-sink     tidegate sink/lines" in trace
        assert "linked to tidegate sink/lines batch" in trace
    assert "tidegate-route" not in first
    assert "tidegate-route    tidegate rule/low" in second
    assert "one trace a message, from four processes" in printed


@pytest.mark.long
def test_a_fourth_consumer_gets_the_past():
    printed = ran("lab-result")
    before, _, after = printed.partition("a fourth consumer comes")
    assert "the ward: {'patient': 'p-1'" in before
    assert before.count("the doctor: ") == 2
    assert "the ward: {'patient': 'p-4'" in after
    registry = after.partition("nats stream view REGISTRY")[2]
    assert registry.index("influenza") < registry.index("measles")
    assert "four consumers, none knew the others" in printed
