"""The exchanges against the clients of this repository, and against one that breaks the contract.

`make conformance-clients` plays all of them; here those marked `short`.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from clients.conformance.errors import Mismatch, ScriptError
from clients.conformance.play import Player, load_exchanges
from support.conformance import REFERENCE, javascript, play

EXCHANGES = {each["name"]: each for each in load_exchanges()}


def short(*lacking):
    """The exchanges of the short form that a client with these gaps can play."""
    return [
        each["name"]
        for each in EXCHANGES.values()
        if each.get("short") and not set(lacking) & set(each.get("needs", ()))
    ]


def test_every_exchange_has_steps_that_are_understood():
    assert len(EXCHANGES) == len(load_exchanges()), "names are used once"
    for each in EXCHANGES.values():
        assert set(each) <= {"name", "page", "about", "needs", "credentials", "short", "steps"}
        for step in each["steps"]:
            action = next(iter(step))
            assert hasattr(Player, f"_do_{action}"), action


def test_the_page_has_the_chapters_that_exchanges_name():
    page = (Path(__file__).parents[3] / "clients" / "PROTOCOL.md").read_text()
    headings = {line.strip("# `") for line in page.splitlines() if line.startswith("#")}
    assert {each["page"] for each in EXCHANGES.values()} <= headings


@pytest.mark.parametrize("name", short("subprotocol", "refusal_close", "deadman"))
async def test_the_reference_client(name, tmp_path):
    assert await play(REFERENCE, EXCHANGES[name], tmp_path) is None


@pytest.mark.parametrize("name", short("header", "status", "receipts"))
async def test_the_javascript_client(name, tmp_path):
    assert await play(javascript(), EXCHANGES[name], tmp_path) is None


CARELESS = """
import asyncio, json, os, sys
from websockets.asyncio.client import connect
print(json.dumps({"event": "ready", "can": ["header"]}), flush=True)
async def main():
    headers = {"Authorization": "Bearer " + TOKEN}
    async with connect(os.environ["TIDEGATE_URL"], subprotocols=["tidegate.v1"],
                       additional_headers=headers, proxy=None) as it:
        await it.send('{"hello":{"outbox":"fixed","oldest":1}}')
        await it.recv()
        sys.stdin.readline()
        print(json.dumps({"event": "queued"}), flush=True)
        await it.send('[{"seq":1,"type":"t","data":1},{"seq":2,"type":"t","data":2},'
                      '{"seq":3,"type":"t","data":3}]')
        await it.wait_closed()
print(json.dumps({"event": "credential"}), flush=True)
TOKEN = json.loads(sys.stdin.readline())["token"]
asyncio.run(main())
"""


@pytest.mark.parametrize(
    ("steps", "wrong"),
    [
        ([{"greet": {}}, {"send": [1]}, {"messages": [1, 3], "from": 1}], "expected 3, got 2"),
        ([{"greet": {}}, {"send": [1]}, {"messages": [1], "from": 2}], "expected 2, got 1"),
        ([{"greet": {}}, {"send": [1]}, {"quiet": 2_000}], "should not come"),
        ([{"greet": {"max_messages_per_frame": 2}}, {"send": [1]}, {"hear": "$any"}], "3 messages"),
        ([{"greet": {"max_frame_bytes": 50}}, {"send": [1]}, {"hear": "$any"}], "over 50"),
        ([{"greet": {"hello": {"oldest": 7}}}], "expected 7, got 1"),
        ([{"opening": {"ticket": "T"}}], "the ticket is None"),
        ([{"opening": {"by": "subprotocol"}}], "not shown by subprotocol"),
        ([{"opening": {"refusal_close": True}}], "no \\?refusal=close"),
        ([{"opening": {"not_before_ms": 60_000}}], "not 60000"),
        ([{"greet": {}}, {"opening": {}, "within_ms": 100}], "no opening"),
    ],
)
async def test_a_careless_client_fails_the_exchange(steps, wrong, tmp_path):
    exchange = {"name": "x", "page": "x", "about": "x", "steps": steps}
    with pytest.raises(Mismatch, match=wrong):
        await play([sys.executable, "-c", CARELESS], exchange, tmp_path)


async def test_an_unknown_step_is_an_error_of_the_script(tmp_path):
    exchange = {"name": "x", "page": "x", "about": "x", "steps": [{"dance": True}]}
    with pytest.raises(ScriptError, match="dance"):
        await play([sys.executable, "-c", CARELESS], exchange, tmp_path)


async def test_a_program_that_is_not_a_client_fails_with_a_clear_message(tmp_path):
    exchange = {"name": "x", "page": "x", "about": "x", "steps": []}
    with pytest.raises(Mismatch, match="ready"):
        await play([sys.executable, "-c", "print('hello')"], exchange, tmp_path)


def test_the_command_prints_the_result_of_each_exchange():
    command = [sys.executable, "-m", "clients.conformance", "--only", "opening-with-", "--"]
    done = subprocess.run(
        [*command, sys.executable, "-c", CARELESS],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 1
    assert "FAILED  opening-with-header" in done.stdout
    assert "skipped opening-with-subprotocol: lacks subprotocol" in done.stdout
    assert json.dumps(done.stderr) == '""'


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["/no/such/client"], "/no/such/client is no program that can be run"),
        (["--only", "xyzzy", "--", sys.executable], "no exchange has xyzzy in its name"),
    ],
)
def test_the_command_says_what_it_cannot_play(arguments, said):
    done = subprocess.run(
        [sys.executable, "-m", "clients.conformance", *arguments],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines()[-1].endswith(said)
