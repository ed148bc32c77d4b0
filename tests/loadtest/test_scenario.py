"""Scenario files: those that ship can be used, and a mistake is named before anything starts."""

import pytest
from test_cli import tidegate

from loadtest.errors import ScenarioError
from loadtest.scenario import load, shipped


def written(tmp_path, text):
    path = tmp_path / "mine.toml"
    path.write_text(text)
    return str(path)


def test_all_scenarios_that_ship_can_be_used():
    assert shipped() == [
        "blip", "crash", "expiry-wave", "forged-flood", "node-loss", "rolling-restart",
        "slow-stream", "stream-outage",
    ]  # fmt: skip
    for name in shipped():
        assert load(name).objectives.model_dump(exclude_none=True)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (
            'title = "t"\nfault = "cut"\ndevises = 5\n',
            "devises: unknown key; did you mean devices?",
        ),
        ('title = "t"\nfault = "cut"\n[objectives]\nknocks = 2\n', "objectives.knocks: unknown"),
        ('title = "t"\nfault = "flood"\n', "fault: input should be 'cut', 'crash'"),
        ('fault = "cut"\n', "title: field required"),
        ('title = "t"\nfault = "cut"\ndevices = 0\n', "devices: input should be greater than"),
        ('title = "t"\nfault = "cut"\npolicy = "hope"\n', "policy: there are ticket"),
        ('title = "t"\nfault = "node-loss"\n', "nodes: node-loss needs 2 or more"),
        ("title = \n", "mine.toml: Invalid value"),
    ],
)
def test_a_mistake_is_named(tmp_path, text, named):
    with pytest.raises(ScenarioError, match=named):
        load(written(tmp_path, text))


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["blimp"], "did you mean blip?"),
        (["crash", "--url", "ws://127.0.0.1:1/v1/device"], "not ours to break"),
        (["blip", "--url", "ws://127.0.0.1:1/v1/device"], "start it: tidegate serve"),
        (["blip", "--url", "http://127.0.0.1:1/"], "must be ws://HOST:PORT/v1/device"),
        (["blip", "--devices", "900000"], "ulimit -n"),
        (["blip", "--devices", "0"], "--devices must be more than 0"),
    ],
)
def test_errors_come_before_anything_starts(arguments, named):
    done = tidegate("storm", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert named in done.stderr
