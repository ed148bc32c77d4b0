"""A node as the Lua scripts know it, and the clock of Redis.

Setting the clock of Redis is simulated by changing what Redis has stored about its own clock. For
the nodes that is the same.
"""

import json
import secrets
import time
from importlib.resources import files

import pytest

RATE, BURST, HORIZON_S = 100.0, 20, 900
STEP_S = 1.01 / RATE
TIMEOUT_S = 5
MARKED = ("devices", "revoked", "ticket-secrets")


class Node:
    """A node, as far as the scripts know it."""

    def __init__(self, client, name, *, synced=True, ahead_s=0.0):
        self.client = client
        self.name = name
        self.synced = synced
        self.ahead_s = ahead_s
        self.epoch = ""
        source = files("gateway.cluster")
        self.scripts = {
            name: client.register_script(source.joinpath(f"{name}.lua").read_text())
            for name in ("heartbeat", "lease", "register")
        }

    def now(self):
        return time.time() + self.ahead_s

    def beat(self, rate=RATE):
        keys = ["nodes", "rates", "fleet", "views", "accepts", *MARKED]
        mine = f"{self.now():.6f}" if self.synced else ""
        args = [self.name, TIMEOUT_S, rate, mine, 1.0, secrets.token_hex(4), "id"]
        reply = json.loads(self.scripts["heartbeat"](keys=keys, args=args))
        self.epoch, self.new = reply[3], reply[5] == "1"
        return float(reply[0]) - time.time(), int(reply[1])

    def lease(self, slots=0, *, priority=0, hint=0.0, promised=0.0, until=0.0, vacated=0):
        """How far the calendar is ahead, or why there is no lease."""
        reply = self._lease(slots, priority, hint, promised, until, vacated=vacated)
        return reply[0] if reply[0] != "leased" else float(reply[7]) - float(reply[1])

    def lent(self, wanted, *, admitted=0.0):
        """What the meter lends."""
        return int(self._lease(admitted=admitted, lent=wanted)[8])

    def _lease(
        self, slots=0, priority=0, hint=0.0, promised=0.0, until=0.0, *, vacated=0, admitted=0.0,
        lent=0,
    ):  # fmt: skip
        return self.scripts["lease"](
            keys=["calendar", "fleet", "promises"],
            args=[
                RATE, BURST, 0.01, 0.2, 0.5, HORIZON_S, slots, priority, vacated, f"{admitted:.3f}",
                f"{hint:.6f}", self.name, self.epoch, f"{self.now():.6f}", 1.0,
                f"{promised:.6f}", f"{until:.6f}", lent,
            ],
        )  # fmt: skip

    def register(self, device, fence, *, source=None):
        """What is stale, and what was raised."""
        args = [
            "node:", self.name, source or self.name, int(self.now() * 1e6), 5_000_000, 1_000_000,
            f"{device} {fence}", "",
        ]  # fmt: skip
        return self.scripts["register"](keys=["devices", "nodes", "fleet"], args=args)

    def unregister(self, device, fence):
        """The session of that fence has left."""
        args = ["node:", self.name, self.name, 0, 5_000_000, 1_000_000, "", f"{device} {fence}"]
        return self.scripts["register"](keys=["devices", "nodes", "fleet"], args=args)

    def begin(self, device="t/veh", *, age_s=0.0):
        """The fence of a session that begins now, or has begun, by the clock of this node."""
        return int((self.now() - age_s) * 1e6)


def set_clock(client, by_s):
    """The clock of Redis is set."""
    client.hincrbyfloat("fleet", "shift", by_s)
    for name in client.hkeys("views"):
        client.hincrbyfloat("views", name, by_s)


def close_to(seconds):
    return pytest.approx(seconds, abs=0.5)
