"""Scenario files: those that ship can be used, and a mistake is named before anything starts."""

import pytest

from loadtest.errors import ScenarioError
from loadtest.lab import options
from loadtest.lab.scenario import load, shipped
from support.commands import tidegate


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
        (["blip", "--nats-url", ""], "--nats-url: must be nats://USER:PASSWORD@HOST:PORT"),
        (["blip", "--nats-url", "nats://u:p@127.0.0.1:1"], "no NATS answers on 127.0.0.1 port 1"),
        (["blip", "--devices", "900000"], "ulimit -n"),
        (["blip", "--devices", "0"], "--devices must be more than 0"),
    ],
)
def test_errors_come_before_anything_starts(arguments, named):
    done = tidegate("storm", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert named in done.stderr


def help_of(capsys, *arguments):
    with pytest.raises(SystemExit) as ended:
        options.parse([*arguments, "--help"])
    assert ended.value.code == 0
    return capsys.readouterr().out


def test_the_help_of_each_scenario_is_its_own(capsys):
    pages = {name: help_of(capsys, name) for name in shipped()}
    assert len(set(pages.values())) == len(pages)
    for name, page in pages.items():
        scenario = load(name)
        assert f"tidegate storm {name} " in page
        assert f"{scenario.devices:,}\n" in page
        for objective in scenario.objectives.model_dump(exclude_none=True):
            assert objective in page
    assert (
        "A storm in which half of all devices that knock show a forged credential."
        in (pages["forged-flood"])
    )


def test_help_without_a_scenario_lists_them_and_a_wrong_one_is_named(capsys, tmp_path):
    page = help_of(capsys, "--devices", "5")
    for name in shipped():
        assert f"  {name} " in page
    with pytest.raises(ScenarioError, match="did you mean blip"):
        options.parse(["blimp", "--help"])
    mine = written(tmp_path, '# Ours, with fog.\ntitle = "t"\nfault = "cut"\n')
    assert "Ours, with fog." in help_of(capsys, mine)


def test_a_file_in_the_users_directory_does_not_take_the_place_of_a_module(tmp_path):
    """`python -m` would search the current directory first: somebody's cmd.py ran."""
    for name in ("cmd", "code", "statistics", "loadtest"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('the wrong file ran')")
    done = tidegate("storm", "blip", "--help", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "tidegate storm blip" in done.stdout
