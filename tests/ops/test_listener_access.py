"""Who may do what on the operators' port, and what is logged of it."""

import json

import pytest
from structlog.testing import capture_logs

from gateway.ops.protection import SECURITY_HEADERS
from support.ops_port import FAR, OPERATE, READ, bearer


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
