"""`tidegate rules test | lint`."""

import json

import pytest
from typer.testing import CliRunner

from gateway.commands.tree import app

RULES = """
[[rule]]
name = "low"
when = { type = ["battery.low"], data = { soc = [{ numeric = ["<", 20] }] } }
to = "nats:alerts.{device}"
[[rule]]
name = "doors"
when = { type = ["door.open"] }
to = "https://example.com/doors"
"""
EVENT = {"tenant": "acme", "device": "veh-7", "type": "battery.low", "data": {"soc": 35}}


@pytest.fixture
def run(tmp_path):
    file = tmp_path / "events.toml"
    file.write_text(RULES)

    def run(*arguments, rules=RULES, stdin=None):
        file.write_text(rules)
        return CliRunner().invoke(app, ["rules", *arguments, "-e", str(file)], input=stdin)

    return run


def test_events_are_tried_against_every_rule(run):
    low = EVENT | {"data": {"soc": 7}, "stream_seq": 3}
    result = run("test", "-", stdin=json.dumps(EVENT) + "\n\n" + json.dumps(low))
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        "event 1: battery.low of acme/veh-7",
        '  low: data.soc: [{"numeric": ["<", 20]}] does not hold for 35',
        '  doors: type: ["door.open"] does not hold for "battery.low"',
        "event 2: battery.low of acme/veh-7",
        "  low: matches -> nats:alerts.{device}",
        '  doors: type: ["door.open"] does not hold for "battery.low"',
    ]


@pytest.mark.parametrize("written", [json.dumps(EVENT, indent=2), json.dumps([EVENT])])
def test_a_file_may_be_one_document(run, tmp_path, written):
    (tmp_path / "events.json").write_text(written)
    result = run("test", str(tmp_path / "events.json"), "--only", "low")
    assert result.stdout.count("\n") == 2


@pytest.mark.parametrize(
    ("stdin", "said"),
    [
        ("", "- holds no event"),
        ("{}\n{", "-, line 2:"),
        ("{}\n7", "-, line 2: an event is a JSON object"),
        ("7", "-: event 1: an event is a JSON object"),
    ],
)
def test_what_is_no_event_is_named(run, stdin, said):
    result = run("test", "-", stdin=stdin)
    assert result.exit_code == 1
    assert said in result.stderr


def test_files_and_names_that_do_not_exist(run, tmp_path):
    assert "No such file" in run("test", str(tmp_path / "no.json")).stderr
    assert "--only x: there are low, doors" in run("test", "-", "--only", "x", stdin="{}").stderr
    assert "no [[rule]]" in run("lint", rules="").stderr
    assert 'rule "low".when.typ' in run("lint", rules=RULES.replace("type =", "typ =")).stderr


def test_lint(run, tmp_path):
    assert run("lint").exit_code == 0
    result = run("lint", rules=RULES.replace("door.open", "door open"))
    assert result.exit_code == 1
    assert 'rule "doors".when.type: "door open" never holds: it is no type' in result.stdout
    (tmp_path / "schemas").mkdir()
    (tmp_path / "schemas" / "battery.low.json").write_text("{}")
    rules = '[schemas]\nfolder = "schemas"\nunknown_type = "reject"\n' + RULES
    result = run("lint", rules=rules)
    assert "door.open" in result.stdout
    assert "battery.low" not in result.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--where", '{"typ": ["x"]}'), "--where: typ: an event has"),
        (("--where", "{"), "--where: a pattern in a string is JSON"),
        (("--where", '{"type": ["x"]}', "--dead-letters"), "--where is for events"),
        (("--until", "noon"), "--until 'noon': neither 10m"),
    ],
)
def test_what_tail_cannot_replay_is_named(arguments, said):
    result = CliRunner().invoke(app, ["tail", *arguments])
    assert result.exit_code == 1
    assert said in result.stderr
