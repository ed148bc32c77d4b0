"""What the pages name exists: files, commands, targets of make, links."""

import re
from pathlib import Path

import pytest

from gateway.commands.tree import COMMANDS

TOP = Path(__file__).parents[1]
PAGES = [
    TOP / name
    for name in (
        "README.md",
        "clients/PROTOCOL.md",
        "clients/conformance/README.md",
        "clients/python/README.md",
        "config/README.md",
        "gateway/README.md",
        "loadtest/README.md",
    )
]
each_page = pytest.mark.parametrize("page", PAGES, ids=[str(page.parent.name) for page in PAGES])


_SPANS = {"send", "message", "publish", "rule"}
"""Spans of traces are named like commands."""


@each_page
def test_every_link_leads_to_a_file(page):
    links = re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text())
    local = [link for link in links if "://" not in link]
    assert [link for link in local if not (page.parent / link).exists()] == []


def test_every_file_that_the_page_of_the_code_names_exists():
    page = TOP / "gateway" / "README.md"
    named = set(re.findall(r"`([\w./-]+\.(?:py|lua|toml|md))`", page.read_text()))
    there = [str(path) for path in TOP.rglob("*.*") if ".venv" not in path.parts]
    assert len(named) > 50
    assert [name for name in sorted(named) if not any(p.endswith(f"/{name}") for p in there)] == []


@each_page
def test_every_command_and_target_of_make_exists(page):
    text = page.read_text()
    commands = set(re.findall(r"`(?:\S*/)?tidegate ([a-z][a-z-]+)", text))
    assert commands - _SPANS <= set(COMMANDS)
    targets = set(re.findall(r"(?:^|`)make ([a-z-]+)", text, re.MULTILINE))
    made = set(re.findall(r"^([a-z-]+):", (TOP / "Makefile").read_text(), re.MULTILINE))
    assert targets <= made


def test_every_command_has_its_line_in_the_readme():
    rows = re.findall(
        r"^\| `tidegate ([a-z][a-z-]*)", (TOP / "README.md").read_text(), re.MULTILINE
    )
    assert sorted(rows) == sorted(COMMANDS)
