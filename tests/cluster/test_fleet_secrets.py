"""Ticket secrets rotate under a storm without a dishonoured ticket, by the documented procedure."""

import asyncio
import contextlib

from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus

from support.fleet import complete, fleet_of, minted, node_settings
from support.gateways import running_gateway
from support.waiting import eventually
from support.wire import raw_device

OLD, NEW = "o" * 40, "n" * 40
STORM = {
    "admission__rate_per_s": 20.0,
    "admission__rate_floor_per_s": 20.0,
    "admission__burst": 1,
    "admission__park_ms": 0,
    "admission__device_knocks_per_s": 1_000.0,
    "admission__device_knock_burst": 10_000,
}


class Fleet:
    """Three nodes, each of which can be started again with other secrets."""

    def __init__(self, tmp_path, servers, stack):
        self.tmp_path = tmp_path
        self.servers = servers
        self.stack = stack
        self.running = {}
        self.gone = []

    @property
    def nodes(self):
        return [node for node, _running in self.running.values()]

    async def start(self, number, secrets):
        if number in self.running:
            node, running = self.running.pop(number)
            self.gone.append(node)
            await running.aclose()
        running = contextlib.AsyncExitStack()
        settings = node_settings(
            self.tmp_path, self.servers, admission__ticket_secrets=secrets, **STORM
        )
        node = await running.enter_async_context(
            running_gateway(self.tmp_path / f"node-{number}", **settings)
        )
        self.stack.push_async_callback(running.aclose)
        self.running[number] = (node, running)

    def invalid(self):
        return sum(
            node.metrics.value("tidegate_tickets_invalid_total", {"reason": reason}) or 0
            for node in (*self.nodes, *self.gone)
            for reason in ("key", "forged")
        )

    def honoured(self):
        return sum(
            node.metrics.value("tidegate_tickets_total", {"outcome": "honoured"}) or 0
            for node in (*self.nodes, *self.gone)
        )


async def storm(fleet, tmp_path, name):
    """A device that connects to another node each time, and shows the ticket that it got."""
    ticket, number, token = "", 0, minted(tmp_path, name)
    while True:
        number += 1
        node = fleet.nodes[number % len(fleet.nodes)]
        try:
            async with raw_device(node, token=token, ticket=ticket, greet=False):
                ticket = ""
        except InvalidStatus as exc:
            ticket = exc.response.headers.get("Tidegate-Ticket", "")
            retry_ms = int(exc.response.headers.get("Tidegate-Retry-After-Ms", 50))
            await asyncio.sleep(retry_ms / 1000)
        except (OSError, EOFError, InvalidHandshake, ConnectionClosed):
            await asyncio.sleep(0.05)  # that node is being restarted


async def test_secrets_rotate_under_a_storm_without_a_dishonoured_ticket(tmp_path, servers):
    async with contextlib.AsyncExitStack() as stack:
        fleet = Fleet(tmp_path, servers, stack)
        for number in range(3):
            await fleet.start(number, (OLD,))
        await complete(fleet.nodes)
        devices = [
            asyncio.create_task(storm(fleet, tmp_path, f"veh-{number}")) for number in range(30)
        ]
        try:
            for secrets in ((NEW, OLD), (NEW,)):
                for number in range(3):
                    await fleet.start(number, secrets)
                    await complete(fleet.nodes)
                    before = fleet.honoured()
                    await eventually(lambda before=before: fleet.honoured() > before + 5)
                await eventually(
                    lambda: all(
                        node.admission.keyring.issuing == NEW.encode() for node in fleet.nodes
                    )
                )
                if secrets == (NEW, OLD):
                    # The procedure: the old one goes once its last ticket is spent.
                    before = fleet.honoured()
                    await eventually(lambda before=before: fleet.honoured() > before + 60)
        finally:
            for device in devices:
                device.cancel()
            await asyncio.gather(*devices, return_exceptions=True)
        assert fleet.invalid() == 0
        assert fleet.honoured() > 60


async def test_a_node_whose_secret_differs_says_so_and_so_do_the_others(tmp_path, servers):
    async with contextlib.AsyncExitStack() as stack:
        fleet = Fleet(tmp_path, servers, stack)
        for number, secrets in enumerate(((NEW, OLD), (OLD,), ("x" * 40,))):
            await fleet.start(number, secrets)
        await complete(fleet.nodes)

        def shown():
            pages = [fleet_of(node)["ticket_secrets"] for node in fleet.nodes]
            return [(page["differ"], page["nodes_that_do_not_accept"]) for page in pages]

        await eventually(lambda: shown() == [(False, 1), (False, 1), (True, 2)])
        for node in fleet.nodes:
            assert node.metrics.value("tidegate_ticket_secrets_differ") == 1
