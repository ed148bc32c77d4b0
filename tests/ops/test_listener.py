"""The operators' port over real sockets, with pages of the test."""

import asyncio
import contextlib
import enum
import json
import math
import time

import pytest
from structlog.testing import capture_logs

from gateway.ops.access import Access, parse_tokens
from gateway.ops.errors import OpsListenError
from gateway.ops.gateway_orders import GatewayOrders
from gateway.ops.listener import OpsListener, Pages
from gateway.ops.pages import BODY_BYTES_MAX, json_page
from gateway.ops.protection import SECURITY_HEADERS, Protection
from tidegate.wire.grammar import is_token

FAR = 4_000_000_000
OPERATE, READ = "operate-" + "x" * 24, "read-" + "y" * 24
TOKENS = f"alice operate {OPERATE}\nwall read {READ}"


class Revocations:
    def __init__(self):
        self.entries = {}

    async def revoke(self, subject, until):
        self.entries[subject] = until
        return "fleet"

    async def unrevoke(self, subject):
        self.entries.pop(subject, None)
        return "node"

    def in_force(self):
        return list(self.entries.items())


class Devices:
    def __init__(self):
        self.ended = []

    async def find(self, tenant, device):
        return {"tenant": tenant, "device": device, "session": None}

    async def disconnect(self, tenant, device):
        self.ended.append((tenant, device))
        return device == "veh-1"


class Steering:
    def __init__(self):
        self.orders = []

    async def steer(self, values, for_s, by):
        self.orders.append((values, for_s, by))
        return "fleet"

    async def unsteer(self, by):
        self.orders.append(by)
        return "node"


class Kind(enum.StrEnum):
    A = "a"


class Port:
    def __init__(self, tokens=None):
        self.drains = []
        self.revocations = Revocations()
        self.devices = Devices()
        self.steering = Steering()
        self.denied = []
        pages = Pages(
            metrics=lambda: (b"# metrics\n", "text/plain; version=1.0.0"),
            not_ready=lambda: "draining" if self.drains else None,
            status=lambda: {"devices": 5},
        )
        orders = GatewayOrders(
            drain=self.drains.append,
            revocations=self.revocations,
            devices=self.devices,
            steering=self.steering,
            is_token=is_token,
        )
        access = Access(tokens, wall=time.time, clock=time.monotonic)
        self.listener = OpsListener(
            pages,
            protection=Protection(access, on_denied=self.denied.append),
            routes=orders.routes(),
            hosts=["gate-1.internal"],
        )
        self.port = 0

    async def send(self, data, *, until=b""):
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            writer.write(data)
            return await (reader.readuntil(until) if until else reader.read())
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    async def ask(self, line, body=None, *, host="127.0.0.1", headers=()):
        """Status and JSON (or text) of the answer."""
        lines = [f"{line} HTTP/1.1", *(f"Host: {each}" for each in host.split("|") if host)]
        if body is not None:
            text = body if isinstance(body, bytes) else json.dumps(body).encode()
            lines.append(f"Content-Length: {len(text)}")
            if not headers:
                headers = ["Content-Type: application/json"]
        lines += [*headers, "Connection: close", "", ""]
        answer = await self.send("\r\n".join(lines).encode() + (text if body is not None else b""))
        head, _, content = answer.partition(b"\r\n\r\n")
        status = int(head.split()[1])
        return status, json.loads(content) if b"application/json" in head else content


@pytest.fixture
async def ops():
    port = Port()
    port.port = await port.listener.start("127.0.0.1", 0)
    yield port
    await port.listener.stop()


@pytest.fixture
async def guarded():
    """A port with tokens."""
    port = Port(parse_tokens(TOKENS))
    port.port = await port.listener.start("127.0.0.1", 0)
    yield port
    await port.listener.stop()


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


def bearer(token):
    return [f"Authorization: Bearer {token}", "Content-Type: application/json"]


async def test_orders_need_the_role_operate_and_names_the_role_read(guarded):
    device = {"tenant": "default", "device": "veh-1"}
    assert (await guarded.ask("POST /disconnect", device))[0] == 401
    assert (await guarded.ask("POST /disconnect", device, headers=bearer(READ)))[0] == 403
    status, answer = await guarded.ask("POST /disconnect", device, headers=bearer(OPERATE))
    assert (status, answer) == (200, {"disconnected": True})
    assert guarded.devices.ended == [("default", "veh-1")]
    assert (await guarded.ask("GET /revocations"))[0] == 401
    assert (await guarded.ask("GET /revocations", headers=bearer(READ)))[0] == 200
    for page in ("/metrics", "/healthz", "/readyz", "/status"):
        assert (await guarded.ask(f"GET {page}"))[0] == 200, "a page that names no device is open"
    assert guarded.denied == ["token_missing", "role", "token_missing"]


async def test_a_device_is_looked_up_by_its_name(guarded):
    page = "GET /devices/default/veh-1"
    assert (await guarded.ask(page))[0] == 401
    status, answer = await guarded.ask(page, headers=bearer(READ))
    assert (status, answer["device"]) == (200, "veh-1")
    for name in ("a%20b/veh-1", "default/x%2Fy", "default/" + "v" * 65, "default/%3Cimg%3E"):
        status, answer = await guarded.ask(f"GET /devices/{name}", headers=bearer(READ))
        assert (status, answer["error"]) in ((400, "bad_request"), (404, "bad_request"))


async def test_steering_says_who_ordered_it(guarded):
    order = {"rate_per_s": 200, "for_s": 600}
    status, answer = await guarded.ask("POST /steer", order, headers=bearer(OPERATE))
    assert (status, answer) == (200, {"steered": "fleet", "for_s": 600.0, "rate_per_s": 200.0})
    status, answer = await guarded.ask("POST /unsteer", {}, headers=bearer(OPERATE))
    assert (status, answer) == (200, {"unsteered": "node"})
    assert guarded.steering.orders == [({"rate_per_s": 200.0}, 600.0, "alice"), "alice"]
    assert (await guarded.ask("POST /steer", order, headers=bearer(READ)))[0] == 403


async def test_a_guess_of_tokens_ends_in_429_with_a_time(guarded):
    for _ in range(10):
        assert (await guarded.ask("POST /drain", {}, headers=bearer("wrong")))[0] == 401
    request = "POST /drain HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer x\r\n\r\n"
    answer = await guarded.send(request.encode(), until=b"\r\n\r\n")
    assert b" 429 " in answer
    assert b"Retry-After: 6\r\n" in answer
    assert guarded.drains == []


async def test_two_authorizations_are_none(guarded):
    headers = [*bearer(OPERATE), f"Authorization: Bearer {READ}"]
    assert (await guarded.ask("POST /drain", {}, headers=headers))[0] == 401
    assert guarded.drains == []


@pytest.mark.parametrize(
    "marks",
    [
        ["Origin: http://attacker.example"],
        ["Origin: null"],
        ["Origin: http://127.0.0.1.attacker.example"],
        ["Sec-Fetch-Site: cross-site"],
        ["Sec-Fetch-Site: same-site"],
    ],
)
async def test_a_page_of_another_site_may_do_nothing_even_with_a_token(ops, guarded, marks):
    for port, headers in ((ops, ["Content-Type: application/json"]), (guarded, bearer(OPERATE))):
        status, answer = await port.ask("POST /drain", {}, headers=[*headers, *marks])
        assert (status, answer["error"]) == (403, "cross_site")
        assert port.drains == []


async def test_the_page_of_this_port_may_order(ops):
    headers = ["Origin: http://127.0.0.1", "Sec-Fetch-Site: same-origin"]
    headers.append("Content-Type: application/json")
    assert (await ops.ask("POST /drain", {}, headers=headers))[0] == 202


async def test_every_answer_has_the_security_headers_and_none_of_cors(guarded):
    for request in ("GET /status", "GET /nothing", "POST /drain", "OPTIONS /drain", "GET /metrics"):
        text = f"{request} HTTP/1.1\r\nHost: localhost\r\nOrigin: http://x\r\n\r\n"
        head = (await guarded.send(text.encode(), until=b"\r\n\r\n")).decode()
        for name, value in SECURITY_HEADERS.items():
            assert f"{name}: {value}\r\n" in head, request
        assert "Access-Control" not in head


async def test_an_order_is_logged_with_who_gave_it_and_what_came_of_it(guarded):
    with capture_logs() as logs:
        order = {"until": FAR, "tenant": "default", "device": "veh-1"}
        await guarded.ask("POST /revoke", order, headers=bearer(OPERATE))
        await guarded.ask("POST /revoke", {"until": 5, "jti": "x"}, headers=bearer(OPERATE))
        await guarded.ask("POST /revoke", b" " * 5_000, headers=bearer(OPERATE))
        await guarded.ask("GET /revocations", headers=bearer(OPERATE))
    assert [line["event"] for line in logs] == ["operator_order"] * 3
    done, refused, too_large = logs
    assert (done["who"], done["what"], done["address"]) == ("alice", "/revoke", "127.0.0.1")
    assert json.loads(done["order"]) == order
    assert json.loads(done["outcome"]) == {"revoked": "fleet"}
    assert (refused["log_level"], refused["outcome"][:17]) == ("warning", "until is in the p")
    assert (too_large["log_level"], too_large["order"]) == ("warning", "")
    assert OPERATE not in str(logs)


async def test_an_order_that_fails_is_logged_too(guarded, caplog):
    guarded.revocations.entries = None
    with capture_logs() as logs:
        status, _ = await guarded.ask("POST /unrevoke", {"jti": "x"}, headers=bearer(OPERATE))
    assert status == 500
    (line,) = [line for line in logs if line["event"] == "operator_order"]
    assert (line["log_level"], line["outcome"]) == ("warning", "failed")


async def test_refusals_are_logged_at_most_once_a_second(guarded):
    with capture_logs() as logs:
        for _ in range(30):
            await guarded.ask("POST /drain", {})
    lines = [line for line in logs if line["event"] == "operator_denied"]
    assert 1 <= len(lines) < 30
    assert lines[0]["error"] == "token_missing"
    assert len(guarded.denied) == 30


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
    with pytest.raises(OpsListenError, match=f"cannot listen on 127.0.0.1 port {ops.port}: "):
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
