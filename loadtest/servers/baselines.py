"""What a gateway is measured against: nats-server alone, a relay, and the least a server can do."""

import sys
from pathlib import Path
from typing import Any

from loadtest.servers.backends import nats_command, write_nats_config
from loadtest.servers.process import Target, free_port


class PeerServer(Target):
    """nats-server with its own WebSocket listener: devices publish to JetStream themselves."""

    name = "nats-server"

    def __init__(self, directory: Path, *, fsync: bool) -> None:
        """
        Args:
            directory: for the server's store and log.
            fsync: whether each write is synced before it is acknowledged.
        """
        super().__init__(directory)
        self._nats_port = free_port()
        jetstream: dict[str, Any] = {"store_dir": str(directory / "js")}
        if fsync:
            jetstream["sync_interval"] = "always"
        document = {
            "listen": f"127.0.0.1:{self._nats_port}",
            "websocket": {"listen": f"127.0.0.1:{self.port}", "no_tls": True},
            "jetstream": jetstream,
            "max_connections": 64_000,
        }
        write_nats_config(directory, document)

    def command(self) -> list[str]:
        return nats_command(self.directory)

    @property
    def nats_url(self) -> str:
        return f"nats://127.0.0.1:{self._nats_port}"


class BareServer(Target):
    """Accepts, reads, writes and closes on uvloop (`bare.py`): the least a refusal can cost."""

    name = "bare"

    def command(self) -> list[str]:
        return [sys.executable, "-P", "-m", "loadtest.servers.bare", str(self.port)]


class Relay(Target):
    """Copies bytes between two sockets (`relay.py`): the least that a process in between costs."""

    name = "relay"

    def __init__(self, directory: Path, upstream_port: int) -> None:
        super().__init__(directory)
        self._upstream_port = upstream_port

    def command(self) -> list[str]:
        arguments = [str(self.port), str(self._upstream_port)]
        return [sys.executable, "-P", "-m", "loadtest.servers.relay", *arguments]
