"""One request over a blocking socket, to a server that a test writes."""

import json

import pytest

from gateway.stream.errors import ConnectError, NotAnswered, Unreachable
from gateway.stream.link.one_request import NoResponders, RequestConnection
from support.one_request_server import INFO, NO_RESPONDERS, message, one_request_server
from support.servers import free_port, mute_server


def ask(server, timeout_s=10):
    with RequestConnection(server.url, name="test", timeout_s=10) as connection:
        return connection.request("a.b", b"{}", inbox_prefix="_INBOX.x", timeout_s=timeout_s)


def test_the_answer_is_returned_and_what_is_sent_is_what_nats_reads():
    with one_request_server(b"PING\r\n" + message(b'{"ok":true}')) as server:
        assert ask(server) == b'{"ok":true}'
    connect, ping, subscribe, publish, body, *_ = server.lines
    options = json.loads(connect.removeprefix(b"CONNECT "))
    assert (options["user"], options["pass"], options["name"]) == ("operators", "pw", "test")
    assert options["headers"] is options["no_responders"] is True
    assert ping == b"PING"
    inbox = subscribe.split()[1]
    assert inbox.startswith(b"_INBOX.x.")
    assert (subscribe, publish, body) == (b"SUB %b 1" % inbox, b"PUB a.b %b 2" % inbox, b"{}")


@pytest.mark.parametrize(
    ("answer", "body"),
    [
        (message(b""), b""),
        (message(b"a\r\nb"), b"a\r\nb"),
        (b"+OK\r\nINFO {}\r\nHMSG inbox 1 18 20\r\nNATS/1.0\r\na: b\r\n\r\nok\r\n", b"ok"),
    ],
)
def test_any_form_of_an_answer_is_read(answer, body):
    with one_request_server(answer) as server:
        assert ask(server) == body


def test_a_ping_is_answered():
    with one_request_server(b"PING\r\n" + message(b"{}")) as server:
        ask(server)
    assert server.lines[-1] == b"PONG"


def test_nobody_listens():
    with one_request_server(NO_RESPONDERS) as server, pytest.raises(NoResponders):
        ask(server)


@pytest.mark.parametrize(
    ("answer", "error", "says"),
    [
        (b"-ERR 'Permissions Violation'\r\n", NotAnswered, "Permissions Violation"),
        (b"", ConnectionError, "closed"),
        (b"MSG inbox one\r\n", NotAnswered, "cannot be read"),
        (b"MSG inbox 1 5\r\n{}", TimeoutError, None),
    ],
)  # fmt: skip
def test_what_is_no_answer_is_said(answer, error, says):
    with one_request_server(answer) as server, pytest.raises(error, match=says):
        ask(server, timeout_s=0.5)


@pytest.mark.parametrize(
    ("info", "pong", "error"),
    [
        (INFO | {"tls_required": True}, b"PONG\r\n", ConnectError),
        ({"max_payload": 10}, b"PONG\r\n", ConnectError),
        (INFO, b"-ERR 'Authorization Violation'\r\n", Unreachable),
        (INFO, b"x" * 70_000, Unreachable),
    ],
)
def test_a_server_that_needs_more_or_refuses_is_sent_nothing(info, pong, error):
    with one_request_server(info=info, pong=pong) as server:
        with pytest.raises(error):
            RequestConnection(server.url, name="test", timeout_s=10)
    assert not any(line.startswith(b"PUB") for line in server.lines)


def test_how_much_the_server_takes_is_known():
    with one_request_server() as server:
        with RequestConnection(server.url, name="test", timeout_s=10) as connection:
            assert connection.takes(b"x" * 1000)
            assert not connection.takes(b"x" * 1001)


@pytest.mark.parametrize(
    "url",
    ["tls://h:4222", "nats://h", "nats://h:70000", "nats://a%40b:pw@h:1", "nats://h:1/x", "h:1"],
)
def test_another_form_of_address_needs_another_client(url):
    with pytest.raises(ConnectError):
        RequestConnection(url, name="test", timeout_s=1)


def test_a_server_that_is_away_or_silent_is_unreachable():
    with pytest.raises(Unreachable):
        RequestConnection(f"nats://127.0.0.1:{free_port()}", name="test", timeout_s=5)
    with mute_server() as port, pytest.raises(Unreachable):
        RequestConnection(f"nats://127.0.0.1:{port}", name="test", timeout_s=0.1)
