import json
import logging
import sys

import pytest
import structlog

from gateway.telemetry.hiding import hide
from gateway.telemetry.logs import SecretNet, configure_logs, set_level, write_summaries
from gateway.telemetry.summing import FIRST

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
        ({"error": f"refused {JWT.rpartition('.')[0]}"}, JWT.split(".")[1]),
        ({"url": "redis://:hunter2@127.0.0.1/0"}, "hunter2"),
        ({"url": "nats://s3cr3t@127.0.0.1"}, "s3cr3t"),
        ({"url": "https://user:hunter2@issuer/jwks"}, "hunter2"),
        ({"head": b"GET / HTTP/1.1\r\nAuthorization: Bearer opaque-123\r\n"}, "opaque-123"),
        ({"headers": {"Cookie": 1, "Tidegate-Ticket": "AAbb-_"}}, "AAbb-_"),
        ({"head": "Tidegate-Ticket: AAbb-_"}, "AAbb-_"),
        ({"protocols": ["tidegate.v1", f"bearer.{JWT}"]}, JWT),
        ({"why": {"nested": [{"api_token": "hunter2"}]}}, "hunter2"),
        ({"error": ValueError(f"bad {JWT}")}, JWT),
        ({"event": f"from a library: {JWT}"}, JWT),
        ({"error": "the known one: swordfish!"}, "swordfish"),
    ],
)
def test_secrets_are_hidden(event, gone):
    net = SecretNet(["swordfish", "", "a"])
    assert gone not in str(net(None, "info", {"event": "e", **event}))


def test_what_is_no_secret_is_shown_as_it_is():
    event = {
        "event": "serving", "port": 8080, "tokens": 3, "secret_is_set": True, "ratio": 0.5,
        "server": "nats://10.0.0.1:4222", "devices": ["a", "b"], "none": None,
        "error": "bearer of bad news", "path": "/v1/device@x",
    }  # fmt: skip
    assert SecretNet(["a"])(None, "info", dict(event)) == event
    assert hide("no secret here") == "no secret here"


@pytest.mark.parametrize("form", ["json", "console"])
def test_an_exception_of_a_library_is_hidden_as_well(capsys, form):
    configure_logs("debug", form, secrets=["swordfish"])
    try:
        int(f"refused {JWT} and swordfish")
    except ValueError:
        structlog.get_logger("x").exception("failed")
        logging.getLogger("library").exception("failed with %s", JWT)
    said = capsys.readouterr().err
    assert said.count("ValueError") >= 2
    assert JWT not in said
    assert "swordfish" not in said


def test_a_device_cannot_forge_a_line(capsys):
    configure_logs("info", "json")
    structlog.get_logger("x").info("event", device='a"\n{"event":"forged"}\r\x1b[31m\x9b31m')
    logging.getLogger("library").warning("from a library\nwith a second line")
    said = capsys.readouterr().err
    assert said.isascii()
    lines = said.splitlines()
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


@pytest.mark.parametrize(
    ("form", "terminal", "is_json"),
    [("auto", True, False), ("auto", False, True), ("json", True, True), ("console", False, False)],
)
def test_a_terminal_is_for_people_unless_the_settings_say_json(
    capsys, monkeypatch, form, terminal, is_json
):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    configure_logs("info", form)
    structlog.get_logger("x").info("event")
    assert capsys.readouterr().err.startswith('{"event": "event"') == is_json


def test_the_level_changes_while_it_runs(capsys):
    configure_logs("info", "json")
    log = structlog.get_logger("x")
    log.debug("quiet")
    set_level("debug")
    log.debug("loud")
    set_level("error")
    log.warning("quiet again")
    logging.getLogger("library").warning("quiet too")
    assert [json.loads(x)["event"] for x in capsys.readouterr().err.splitlines()] == ["loud"]


def lines_of(capsys):
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


def test_ten_thousand_devices_do_not_write_ten_thousand_lines(capsys):
    now = 0.0
    configure_logs("debug", "json", clock=lambda: now)
    log, library = structlog.get_logger("x"), logging.getLogger("library")
    for number in range(10_000):
        log.warning("seq_reused", device=f"veh-{number}", seq=7)
        log.info("left", device=f"veh-{number}", reason="timeout" if number % 2 else "close")
        log.error("connection_failed", exc_info=ValueError("a fault of ours"))
        library.warning("%s hung up", f"veh-{number}")
    now = 1.0
    write_summaries()
    lines = lines_of(capsys)
    written = [line for line in lines if line["event"] != "repeated"]
    sums = {(line["of"], line["cause"]): line for line in lines if line["event"] == "repeated"}
    assert len(written) == 5 * FIRST
    assert {kind: line["lines"] for kind, line in sums.items()} == {
        ("seq_reused", None): 10_000 - FIRST,
        ("left", "timeout"): 5_000 - FIRST,
        ("left", "close"): 5_000 - FIRST,
        ("connection_failed", "ValueError: a fault of ours"): 10_000 - FIRST,
        ("library", "%s hung up"): 10_000 - FIRST,
    }
    assert [line["level"] for line in sums.values()].count("error") == 1


def test_what_was_left_out_is_said_before_the_next_line(capsys):
    now = 0.0
    configure_logs("info", "json", clock=lambda: now)
    log = structlog.get_logger("x")
    for _ in range(FIRST + 3):
        log.info("left")
    now = 2.5
    log.info("next")
    assert [line["event"] for line in lines_of(capsys)] == ["left"] * FIRST + ["repeated", "next"]
    write_summaries(all_of_them=True)
    assert lines_of(capsys) == []


def test_every_order_of_an_operator_is_on_record(capsys):
    configure_logs("info", "json")
    for number in range(50):
        structlog.get_logger("x").info("operator_order", who="alice", order=number)
    assert [line["order"] for line in lines_of(capsys)] == list(range(50))


def test_a_sum_holds_no_secret(capsys):
    configure_logs("info", "json", secrets=["swordfish"])
    for _ in range(FIRST + 1):
        structlog.get_logger("x").info("left", error=f"swordfish {JWT}")
    write_summaries(all_of_them=True)
    said = capsys.readouterr().err
    assert '"repeated"' in said
    assert "swordfish" not in said
    assert JWT not in said
