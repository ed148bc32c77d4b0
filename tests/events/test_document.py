import re
import tomllib
from datetime import UTC, datetime
from pathlib import Path

import pytest

from gateway.events.columns import Constant, DataPath, EventMember
from gateway.events.document import (
    FilesSink,
    PostgresSink,
    Schemas,
    parse_events,
    read_events_file,
    redrives_of,
)
from gateway.events.errors import EventsFileError
from gateway.events.rules import Rule

SINK = """
[[sink]]
name = "battery"
table = "public.battery"
types = ["battery.", "battery.low", "door"]
from = 2026-11-23T10:00:00+01:00
on_conflict = "update"
key = ["device"]
[sink.columns]
device = "device"
n = "stream_seq"
soc = "data.soc"
lat = "data.position.lat"
source = { constant = "gateway-1" }
"""


def parse(text):
    return parse_events(tomllib.loads(text), "events.toml")


def test_a_sink_is_read():
    (sink,) = parse(SINK).sinks
    assert isinstance(sink, PostgresSink)
    assert sink.columns == {
        "device": EventMember("device"),
        "n": EventMember("stream_seq"),
        "soc": DataPath(("soc",)),
        "lat": DataPath(("position", "lat")),
        "source": Constant("gateway-1"),
    }
    assert sink.start == datetime(2026, 11, 23, 9, tzinfo=UTC)
    assert sink.subjects == ("events.*.*.battery.>", "events.*.*.door")
    assert sink.sequence_column == "n"


def test_what_is_sent_again_has_a_position_of_its_own():
    (table,) = parse(SINK).sinks
    (files,) = parse('[[sink]]\nname = "f"\nkind = "files"\ndirectory = "out"').sinks
    assert (redrives_of(table).name, redrives_of(table).table) == ("battery.redrives", table.table)
    assert (redrives_of(files).name, redrives_of(files).directory) == ("f", Path("out/redrives"))


def test_paths_are_relative_to_the_file(tmp_path):
    (tmp_path / "events.toml").write_text(
        '[schemas]\nfolder = "schemas"\n[[sink]]\nname = "f"\nkind = "files"\ndirectory = "out"\n'
    )
    document = read_events_file(tmp_path / "events.toml")
    assert document.schemas is not None
    assert document.schemas.folder == tmp_path / "schemas"
    (sink,) = document.sinks
    assert isinstance(sink, FilesSink)
    assert sink.directory == tmp_path / "out"


def changed(old, new):
    assert old in SINK
    return SINK.replace(old, new)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (changed("types", "typs"), 'sink "battery".typs: unknown key; did you mean types?'),
        (changed('"stream_seq"', '"stream_sec"'), "did you mean stream_seq?"),
        (changed('"data.soc"', '"data..soc"'), "sink \"battery\".columns.soc: 'data..soc' is"),
        (changed('"data.soc"', '"data."'), 'sink "battery".columns.soc:'),
        (changed('"data.soc"', "7"), 'sink "battery".columns.soc: write a member'),
        (changed("{ constant =", "{ konstant ="), 'sink "battery".columns.source: write'),
        (changed('{ constant = "gateway-1" }', "{ constant = [] }"), "columns.source: write"),
        (changed('"battery.",', '"battery..",'), "types: 'battery..' is neither a type"),
        (changed('key = ["device"]', 'key = ["devise"]'), "key names devise"),
        (changed('key = ["device"]', ""), "needs key"),
        (changed('n = "stream_seq"', ""), "needs a column that is stream_seq"),
        (changed('"update"', '"error"'), 'key is for on_conflict = "nothing" or "update"'),
        (changed("2026-11-23T10:00:00+01:00", "2026-11-23T10:00:00"), "from: write"),
        (changed("2026-11-23T10:00:00+01:00", '"later"'), "from: write"),
        (changed('name = "battery"', 'name = "a b"'), 'sink "a b".name: a name matches'),
        (changed('name = "battery"', ""), "sink number 1.name: Field required"),
        (changed('name = "battery"', 'name = "battery"\nbatch = 0'), 'sink "battery".batch:'),
        (changed('name = "battery"', 'name = "battery"\nkind = "kafka"'), 'sink "battery".kind:'),
        (changed("public.battery", 'a\\"b'), 'sink "battery".table:'),
        (SINK + SINK, "two sinks have the name battery"),
        ("[[sinks]]", "sinks: unknown key; did you mean sink?"),
        ("[schemas]\nfolder='x'\ninvalid='drop'", "schemas.invalid:"),
        ("[schemas]\nfolder='x'\nfoldr='x'", "schemas.foldr: unknown key; did you mean folder?"),
        ("sink = 7", "sink:"),
        ("sink = [7]", "sink number 1"),
    ],
)
def test_what_is_wrong_is_named_with_its_place(text, said):
    with pytest.raises(EventsFileError) as caught:
        parse(text)
    assert f"events.toml: {said}" in str(caught.value) or said in str(caught.value)
    assert str(caught.value).startswith("events.toml: ")


def test_all_offences_are_named_at_once():
    with pytest.raises(EventsFileError) as caught:
        parse(changed("types", "typs").replace('"data.soc"', "7"))
    assert len(str(caught.value).splitlines()) == 2


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"[", "events.toml: "), (b"\xff", "events.toml: "), (None, "No such file")],
)
def test_a_file_that_cannot_be_read(tmp_path, content, said):
    path = tmp_path / "events.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(EventsFileError, match=said):
        read_events_file(path)


ROOT = Path(__file__).parents[2]


def test_the_example_shows_every_key_with_its_default():
    text = (ROOT / "config" / "events.toml").read_text()
    shown = "\n".join(
        line.removeprefix("# ") if re.match(r"# (\w+ = |\[)", line) else line
        for line in text.splitlines()
    )
    written = parse(text)
    assert [sink.name for sink in written.sinks] == ["battery", "archive"]
    assert [rule.name for rule in written.rules] == ["battery-low"]
    everything = tomllib.loads(shown)
    for model, section in (
        (Schemas, everything["schemas"]),
        (PostgresSink, everything["sink"][0]),
        (FilesSink, everything["sink"][1]),
        (Rule, everything["rule"][0]),
    ):
        fields = {field.alias or name: field for name, field in model.model_fields.items()}
        shared = {"types", "from", "batch", "batch_bytes", "linger_ms"}
        wanted = set(fields) - (shared if model is FilesSink else set())
        assert set(section) >= wanted
        for name, value in section.items():
            default = fields[name].default
            if not fields[name].is_required() and name not in {"types", "key", "kind", "pick"}:
                assert value == default, name


@pytest.mark.parametrize("example", sorted((ROOT / "config" / "examples").glob("*/events.toml")))
def test_an_example_is_read(example):
    assert read_events_file(example).sinks
