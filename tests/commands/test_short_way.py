"""The short way of `tidegate command`: quick, and only for lines that it reads without a doubt."""

import json
import subprocess
import sys

import pytest

from gateway.commands import short_way
from gateway.settings import Settings
from support.commands import environment
from support.one_request_server import INFO, NO_RESPONDERS, message, one_request_server
from support.servers import free_port

HEAVY = {
    "aiohttp", "asyncio", "cryptography", "dataclasses", "email", "importlib.metadata", "inspect",
    "jwt", "logging", "msgspec", "nats", "nkeys", "orjson", "prometheus_client", "psycopg",
    "pydantic", "redis", "rich", "ssl", "structlog", "typer", "urllib.request", "uvloop",
    "websockets",
}  # fmt: skip
"""Each takes from 5 to 200 ms to import. Python starts in 20."""
ASK = ("command", "veh-1", "door.lock", '{"doors":4}')


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch):
    monkeypatch.setattr(short_way.signal, "signal", lambda _number, _handler: None)
    monkeypatch.setattr(short_way.os, "environ", environment())


def test_an_offline_device_is_said_without_what_takes_long_to_import():
    code = (
        "import sys; from gateway.cli import main\ntry: main()\n"
        "except SystemExit as end: print(end.code, *sys.modules)"
    )
    with one_request_server(NO_RESPONDERS) as server:
        done = subprocess.run(
            [sys.executable, "-P", "-c", code, *ASK, "--nats-url", server.url],
            capture_output=True, text=True, check=True, timeout=60, env=environment(),
        )  # fmt: skip
    line, modules = done.stdout.splitlines()
    assert json.loads(line) == {"outcome": "offline", "detail": "no node holds the device"}
    status, *modules = modules.split()
    assert status == "3"
    assert set(modules) & HEAVY == set()
    assert "gateway.commands.tree" not in modules


@pytest.mark.parametrize(
    ("more", "subject"),
    [
        ((), b"commands.default.veh-1"),
        (("--tenant", "acme", "--wait=5s"), b"commands.acme.veh-1"),
    ],
)
def test_the_answer_of_a_device_is_printed(capsys, more, subject):
    answer = {"id": "c1", "ok": False, "data": {"error": "jammed"}}
    with one_request_server(message(json.dumps(answer).encode())) as server:
        assert short_way.run([*ASK, "--nats-url", server.url, *more]) == 6
    line = json.loads(capsys.readouterr().out)
    assert line == {"outcome": "failed", "id": "c1", "data": {"error": "jammed"}}
    assert [line.split()[1] for line in server.lines if line.startswith(b"PUB")] == [subject]


def test_silence_is_no_answer(capsys):
    with one_request_server(b"PING\r\n") as server:
        assert short_way.run([*ASK, "--nats-url", server.url, "--wait", "1s"]) == 4
    assert json.loads(capsys.readouterr().out)["outcome"] == "no_answer"


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (b"-ERR 'Permissions Violation'\r\n", "NATS: Permissions Violation"),
        (b"", "NATS: the server has closed the connection"),
        (message(b"[]"), "NATS: the answer cannot be read"),
    ],
)
def test_what_fails_after_the_request_was_sent_is_said_and_not_repeated(capsys, answer, says):
    with one_request_server(answer) as server:
        assert short_way.run([*ASK, "--nats-url", server.url]) == 1
    assert says in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("--help",),
        ("tail",),
        ("command",),
        ("command", "--help"),
        ("command", "veh-1"),
        (*ASK, "more"),
        (*ASK, "--queue"),
        (*ASK, "--ttl", "1h"),
        (*ASK, "--config", "x.toml"),
        (*ASK, "--wait"),
        (*ASK, "--wait", "0s"),
        (*ASK, "--wait", "soon"),
        (*ASK, "--wait", "1s", "--wait", "2s"),
        (*ASK, "--tenant", "a b"),
        (*ASK, "--tenant", "--wait"),
        (*ASK, "--"),
        ("command", "veh 1", "a"),
        ("command", "veh-1", "no good"),
        ("command", "veh-1", "a", "{"),
        ("command", "veh-1", "a", "NaN"),
        ("command", "veh-1", "a", "-5"),
        ("command", "veh-1", "a", "[" * 100_000),
        ("command", "veh-1", "a", "\udcff"),
        ("command", "veh-1", "a", '"' + "x" * 1000 + '"'),
    ],
)
def test_any_other_line_is_left_to_the_tree_and_nothing_is_sent(capsys, arguments):
    with one_request_server(NO_RESPONDERS) as server:
        assert short_way.run([*arguments, "--nats-url", server.url]) is None
    assert not any(line.startswith(b"PUB") for line in server.lines)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    "variable", [{"TIDEGATE_NATS__URLS": "nats://other:4222"}, {"TRACEPARENT": "00-.."}]
)
def test_what_the_environment_sets_is_left_to_the_tree(monkeypatch, variable):
    with one_request_server(NO_RESPONDERS) as server:
        line = [*ASK, "--nats-url", server.url]
        monkeypatch.setattr(short_way.os, "environ", environment(**variable))
        assert short_way.run(line) is None
    assert server.lines == []


def test_a_server_that_is_away_or_of_another_kind_is_left_to_the_tree(tmp_path):
    assert short_way.run([*ASK, "--nats-url", f"nats://127.0.0.1:{free_port()}"]) is None
    assert short_way.run([*ASK, "--data-dir", str(tmp_path)]) is None
    with one_request_server(info=INFO | {"tls_required": True}) as server:
        assert short_way.run([*ASK, "--nats-url", server.url]) is None


def test_the_address_that_a_gateway_has_left_is_used(tmp_path, capsys):
    (tmp_path / "nats").mkdir()
    with one_request_server(NO_RESPONDERS) as server:
        (tmp_path / "nats" / "operators.url").write_text(server.url + "\n")
        assert short_way.run([*ASK, "--data-dir", str(tmp_path)]) == 3
    assert json.loads(capsys.readouterr().out)["outcome"] == "offline"
    assert str(Settings().nats.data_dir) == short_way.DATA_DIR
