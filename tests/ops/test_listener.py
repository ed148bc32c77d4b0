"""The operators' port over real sockets, with pages of the test."""

import asyncio
import enum
import json
import math

import pytest

from gateway.ops.errors import OpsListenError
from gateway.ops.pages import BODY_BYTES_MAX, json_page
from support.ops_port import FAR, Port


class Kind(enum.StrEnum):
    A = "a"


async def test_the_pages(ops):
    assert await ops.ask("GET /metrics") == (200, b"# metrics\n")
    assert await ops.ask("GET /healthz") == (200, {"healthy": True})
    assert await ops.ask("GET /readyz") == (200, {"ready": True})
    assert await ops.ask("GET /status") == (200, {"devices": 5})
    assert (await ops.ask("GET /nothing"))[0] == 404
    assert (await ops.ask("GET /drain"))[0] == 405
    assert ops.drains == []


@pytest.mark.parametrize("page", ["GET /metrics", "GET /healthz", "GET /readyz"])
async def test_probes_and_scrapes_may_name_any_host(ops, page):
    assert (await ops.ask(page, host="10-1-2-3.pod.cluster.local:9090"))[0] == 200


@pytest.mark.parametrize(
    ("line", "body"),
    [
        ("GET /status", None),
        ("GET /revocations", None),
        ("POST /drain", {}),
        ("POST /revoke", {"until": FAR, "jti": "x"}),
        ("POST /unrevoke", {"jti": "x"}),
        ("GET /", None),
    ],
)
async def test_a_page_under_a_foreign_name_reaches_nothing(ops, line, body):
    """DNS rebinding: to the browser it is the same origin, but `Host` has the name of the site."""
    for host in ("attacker.example:9090", "", "127.0.0.1|attacker.example"):
        headers = ["Origin: http://attacker.example:9090", "Content-Type: application/json"]
        status, answer = await ops.ask(line, body, host=host, headers=headers)
        assert status in (400, 421)
        if status == 421:
            assert "ops.hosts" in answer["detail"]
    assert ops.drains == []
    assert ops.revocations.entries == {}


async def test_an_absolute_target_is_judged_as_a_host(ops):
    assert (await ops.ask("GET http://attacker.example/status"))[0] == 421
    assert (await ops.ask("GET http://127.0.0.1/status"))[0] == 200


async def test_configured_names_and_addresses_are_good(ops):
    for host in ("gate-1.internal:9090", "localhost", "[::1]:9090", "10.0.0.7"):
        assert (await ops.ask("GET /status", host=host))[0] == 200


async def test_drain_may_be_repeated_and_now_is_a_word_of_its_own(ops):
    for _ in range(3):
        assert await ops.ask("POST /drain", {}) == (202, {"draining": True, "now": False})
    assert await ops.ask("POST /drain", {"now": True}) == (202, {"draining": True, "now": True})
    assert (await ops.ask("POST /drain", {"now": "yes"}))[0] == 400
    assert ops.drains == [False, False, False, True]


async def test_revocations_are_made_listed_and_undone(ops):
    device = {"tenant": "default", "device": "veh-1"}
    assert await ops.ask("POST /revoke", {"until": FAR, **device}) == (200, {"revoked": "fleet"})
    await ops.ask("POST /revoke", {"until": FAR + 1, "jti": "abc"})
    entries = [{**device, "until": FAR}, {"jti": "abc", "until": FAR + 1}]
    assert await ops.ask("GET /revocations") == (200, {"total": 2, "revocations": entries})
    undone = {"unrevoked": "node", "was_revoked": True}
    assert await ops.ask("POST /unrevoke", device) == (200, undone)
    assert (await ops.ask("POST /unrevoke", device))[1]["was_revoked"] is False
    assert (await ops.ask("GET /revocations"))[1]["total"] == 1


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (b'{"until":1,"jti":"x"}', [], 400),
        (b"{}", ["Content-Type: text/plain"], 415),
        (b"jti=x", ["Content-Type: application/x-www-form-urlencoded"], 415),
        (b" " * (BODY_BYTES_MAX + 1), [], 413),
        (b"\x1f\x8b", ["Content-Type: application/json", "Content-Encoding: gzip"], 400),
        (json.dumps({"until": FAR, "tenant": "t", "device": "d" * 100}).encode(), [], 400),
    ],
)
async def test_a_bad_body_is_refused_in_json(ops, body, headers, status):
    answer = await ops.ask("POST /revoke", body, headers=headers)
    assert answer[0] == status
    assert answer[1]["error"] == "bad_request"
    assert ops.revocations.entries == {}


async def test_a_body_that_never_comes_is_given_up(ops, monkeypatch):
    monkeypatch.setattr("gateway.ops.pages.BODY_TIMEOUT_S", 0.01)
    head = "POST /drain HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    answer = await ops.send(f"{head}Content-Length: 5\r\n\r\n".encode(), until=b"\r\n\r\n")
    assert b" 408 " in answer
    assert ops.drains == []


async def test_what_is_no_http_leaves_no_traceback(ops, caplog):
    for data in (b"\x16\x03\x01\x02\x00\r\n\r\n", b"GET\r\n\r\n", b"GET / HTTP/9\r\n\r\n"):
        assert b" 400 " in (await ops.send(data)).split(b"\r\n")[0]
    many = b"".join(b"a%d: b\r\n" % number for number in range(100))
    await ops.send(b"GET /status HTTP/1.1\r\nHost: localhost\r\n" + many + b"\r\n")
    assert caplog.records == []


async def test_connections_that_say_nothing_do_not_keep_operators_out(ops):
    silent = [await asyncio.open_connection("127.0.0.1", ops.port) for _ in range(200)]
    try:
        assert (await ops.ask("GET /readyz"))[0] == 200
    finally:
        for _reader, writer in silent:
            writer.transport.abort()


async def test_an_address_in_use_is_said(ops):
    with pytest.raises(OpsListenError, match=f"port {ops.port}: Address already in use$"):
        await Port().listener.start("127.0.0.1", ops.port)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (math.nan, None),
        ({7: "an integer as a key"}, {"7": "an integer as a key"}),
        (2**64 - 1, 2**64 - 1),
        ("é\u2028\x1b", "é\u2028\x1b"),
        (("a", "tuple"), ["a", "tuple"]),
        (Kind.A, "a"),
        ([], []),
    ],
)
def test_a_page_shows_whatever_its_process_tells(value, shown):
    page = json_page({"shown": value})
    assert json.loads(page.body) == {"shown": shown}
    assert page.body.startswith(b'{\n  "shown": ')
    assert page.body.endswith(b"\n}\n")
