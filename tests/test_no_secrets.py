"""No secret is in anything that a gateway logs, whatever is done to it."""

import asyncio
import contextlib
import json
import secrets as random_secrets
import signal
import socket

from gateway import development
from support.commands import tidegate
from support.processes import GatewayProcess
from support.servers import redis_server
from support.waiting import eventually

PASSWORD = "redis-Pass-" + random_secrets.token_hex(8)
TICKET_SECRET = "ticket-" + random_secrets.token_hex(32)


def head(*lines):
    return "\r\n".join([*lines, "", ""]).encode()


def opening(token, *more, target="/v1/device", protocol="tidegate.v1"):
    return head(
        f"GET {target} HTTP/1.1", "Host: localhost", "Upgrade: websocket", "Connection: Upgrade",
        "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        f"Sec-WebSocket-Protocol: {protocol}",
        *([f"Authorization: Bearer {token}"] if token else []), *more,
    )  # fmt: skip


def knock(port, data):
    """Send it, and have the answer or the end of it."""
    with socket.create_connection(("127.0.0.1", port), 10) as connection:
        connection.sendall(data)
        connection.settimeout(10)
        with contextlib.suppress(OSError):
            return connection.recv(65_536)
    return b""


async def test_nothing_that_a_full_run_logs_holds_a_secret(tmp_path):
    with redis_server("--requirepass", PASSWORD) as redis:
        gateway = GatewayProcess(
            tmp_path,
            LOG__LEVEL="debug",
            LOG__FORMAT="json",
            CLUSTER__REDIS_URL=f"redis://:{PASSWORD}@127.0.0.1:{redis.port}",
            ADMISSION__TICKET_SECRETS=TICKET_SECRET,
            ADMISSION__RATE_PER_S="0.5",
            ADMISSION__RATE_FLOOR_PER_S="0.5",
            ADMISSION__BURST="2",
            ADMISSION__PARK_MS="0",
        )
        gateway.start()
        try:
            shown = await asyncio.to_thread(exercise, gateway)
            redis.kill()
            await eventually(lambda: "redis" in gateway.log.rpartition("serving")[2])
            jwks = development.key_file(gateway.data_dir)
            key = json.loads(jwks.read_text())["keys"][0]["k"]
            jwks.write_text(json.dumps({"keys": [{"kty": "oct", "k": key, "kid": 7}]}))
            gateway.signal(signal.SIGHUP)
            await eventually(lambda: gateway.events("jwks_refresh_failed"))
            urls = [path.read_text().strip() for path in gateway.data_dir.glob("nats/url*")]
            gateway.signal(signal.SIGTERM)
            await gateway.ended()
        finally:
            gateway.stop()
    passwords = [url.split("://")[1].split("@")[0].split(":")[-1] for url in urls if "@" in url]
    assert passwords
    nats = "".join(path.read_text(errors="replace") for path in gateway.data_dir.rglob("*.log"))
    logs = gateway.log + nats
    assert '"level": "debug"' in gateway.log or '"level": "info"' in gateway.log
    for secret in (PASSWORD, TICKET_SECRET, key, *passwords, *shown):
        for part in secret.split("."):
            if len(part) > 20 or part == secret:
                assert part not in logs, f"...{logs[: logs.index(part) + len(part)][-300:]}"


def exercise(gateway):
    """Devices that come, are refused, lie, and are revoked. All that must not be logged."""
    mint = development.mint
    good = [mint(gateway.data_dir, f"veh-{n}", lifetime_s=600, claims={}) for n in range(5)]
    expired = mint(gateway.data_dir, "veh-9", lifetime_s=-600, claims={})
    forged = good[0].rpartition(".")[0] + "." + "A" * 43
    opaque = "opaque-" + random_secrets.token_hex(16)
    ticket = random_secrets.token_urlsafe(31)
    port = gateway.port
    tickets = []
    for token in good:
        answer = knock(port, opening(token))
        tickets += [
            line.partition(b":")[2].strip().decode()
            for line in answer.split(b"\r\n")
            if line.lower().startswith(b"tidegate-ticket:")
        ]
    assert tickets, "the rate refuses the later ones with a ticket"
    for data in (
        opening(expired),
        opening(forged),
        opening(opaque),
        opening(good[0] + "="),
        opening(good[1], f"Tidegate-Ticket: {ticket}"),
        opening(good[2], f"Tidegate-Ticket: {tickets[0]}"),
        opening("", protocol=f"tidegate.v1, bearer.{good[3]}"),
        opening("", protocol=f"tidegate.v1, bearer.{forged}, ticket.{ticket}"),
        opening("", target=f"/v1/device?access_token={good[4]}"),
        opening("", target=f"//[{good[4]}/v1/device"),
        opening(good[1], f"X: \x00{opaque}"),
        opening(good[1], f"Origin: http://{opaque}.example", f"Origin: http://{opaque}.example"),
        head(f"GET /v1/device HTTP/1.1 {good[1]}", "Host: localhost"),
        f"{good[1]}\r\n\r\n".encode(),
    ):
        knock(port, data)
    ops = f"http://127.0.0.1:{gateway.ops_port}"
    jti = "jti-" + random_secrets.token_hex(16)
    tidegate("revoke", "--jti", jti, "--ops-url", ops)
    tidegate("revoke", "--device", "veh-1", "--ops-url", ops)
    knock(port, opening(good[1]))
    knock(gateway.ops_port, head(f"POST /revoke?{good[1]} HTTP/1.1", f"Host: {opaque}"))
    return [*good, expired, forged, opaque, ticket, *tickets]
