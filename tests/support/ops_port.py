"""The operators' port over a real socket, with pages and orders of the test."""

import asyncio
import contextlib
import json
import time

from gateway.ops.access import Access
from gateway.ops.gateway_orders import GatewayOrders
from gateway.ops.listener import OpsListener, Pages
from gateway.ops.protection import Protection
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


def bearer(token):
    return [f"Authorization: Bearer {token}", "Content-Type: application/json"]
