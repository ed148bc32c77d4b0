import json
import logging

import pytest
import structlog

from gateway.telemetry.logs import configure_logs, hide_secrets

JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJ2ZWgtMSJ9.c2lnbmF0dXJl"


@pytest.fixture(autouse=True)
def restored():
    handlers, level = logging.root.handlers[:], logging.root.level
    yield
    logging.root.handlers[:] = handlers
    logging.root.setLevel(level)
    structlog.reset_defaults()


@pytest.mark.parametrize(
    ("event", "gone"),
    [
        ({"password": "hunter2"}, "hunter2"),
        ({"nats_token": "hunter2"}, "hunter2"),
        ({"error": f"refused {JWT} twice"}, JWT),
        ({"server": "nats://user:hunter2@10.0.0.1:4222"}, "hunter2"),
        ({"Authorization": "Bearer x"}, "Bearer x"),
    ],
)
def test_secrets_are_hidden(event, gone):
    assert gone not in str(hide_secrets(None, "info", {"event": "e", **event}))


def test_a_device_cannot_forge_a_line(capsys):
    configure_logs("info", "json")
    structlog.get_logger("x").info("event", device='a"\n{"event":"forged"}\r\x1b[31m')
    logging.getLogger("library").warning("from a library\nwith a second line")
    lines = capsys.readouterr().err.splitlines()
    assert [json.loads(line)["event"] for line in lines] == [
        "event",
        "from a library\nwith a second line",
    ]


def test_levels(capsys):
    configure_logs("warning", "json")
    structlog.get_logger("x").info("quiet")
    structlog.get_logger("x").warning("loud")
    assert [json.loads(x)["event"] for x in capsys.readouterr().err.splitlines()] == ["loud"]


def test_console(capsys):
    configure_logs("info", "console")
    structlog.get_logger("x").info("event", port=8080)
    assert "port=8080" in capsys.readouterr().err
