"""The table of log events in `config/README.md` names exactly what the code logs."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
LEVELS = {"debug", "info", "warning", "error"}
COMPUTED = {
    # Lines whose level or name is no literal where they are logged.
    "disk_has_room": {"warning"},
    "listening": {"info"},
    "nats_server_silent": {"warning"},
    "operator_order": {"info", "warning"},
    "redis_channels_refused": {"warning", "error"},
    "redis_unavailable": {"warning", "error"},
    "repeated": {"debug", "info", "warning", "error"},
    "rules_started": {"info"},
    "serving": {"info"},
    "sink_state": {"info", "warning", "error"},
    "sinks_started": {"info"},
    "snapshot_failed": {"error"},
    "stopped": {"info"},
    "worker_listening": {"info"},
    "worker_serving": {"info"},
    "worker_stopped": {"info"},
}
NOT_LITERAL = 9
"""Calls that log a computed name or level; each is covered by `COMPUTED`."""


def logged():
    """The events of the code, each with its levels, and how many calls have no literal."""
    found, computed = {}, 0
    for path in sorted((ROOT / "gateway").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call):
                continue
            match node.func:
                case ast.Attribute(ast.Name("_log" | "log"), ("log" | "exception") as method):
                    if method == "exception":
                        found.setdefault(node.args[0].value, set()).add("error")
                    else:
                        computed += 1
                case ast.Attribute(ast.Name("_log" | "log"), level) if level in LEVELS:
                    if isinstance(node.args[0], ast.Constant):
                        found.setdefault(node.args[0].value, set()).add(level)
                    else:
                        computed += 1
    return found, computed


def named_without_a_call():
    """Where a method of a logger is not called at once: what it logs would not be found."""
    for path in sorted((ROOT / "gateway").rglob("*.py")):
        nodes = list(ast.walk(ast.parse(path.read_text())))
        called = {id(node.func) for node in nodes if isinstance(node, ast.Call)}
        for node in nodes:
            match node:
                case ast.Attribute(ast.Name("_log"), name) if id(node) not in called:
                    yield f"{path.name}:{node.lineno}: {name}"


def documented():
    text = (ROOT / "config" / "README.md").read_text()
    section = text.partition("\n## Logs\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `([a-z_]+)` \| ([a-z, ]+) \| (.+) \|$", section, re.MULTILINE)
    assert len(rows) == len({name for name, _, _ in rows}), "an event stands there twice"
    assert [name for name, _, _ in rows] == sorted(name for name, _, _ in rows)
    return {name: set(levels.split(", ")) for name, levels, _ in rows}


def test_the_table_of_events_is_what_the_code_logs():
    assert list(named_without_a_call()) == []
    found, computed = logged()
    assert computed == NOT_LITERAL, "another event has a computed name or level"
    assert documented() == found | COMPUTED


def test_names_are_words():
    assert [name for name in documented() if not re.fullmatch(r"[a-z]+(_[a-z]+)*", name)] == []
