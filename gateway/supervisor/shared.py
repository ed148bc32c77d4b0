"""What the workers share, and the supervisor holds for them."""

import os
import random
import socket
import time
from pathlib import Path
from typing import Any

from gateway import development
from gateway.edge.errors import ListenError
from gateway.edge.listening.sockets import bind, port_of
from gateway.node.board import Board, make_page
from gateway.process import Ending
from gateway.settings import Settings
from gateway.stream.server.nats_server import EmbeddedServer
from gateway.streams import embedded_server
from gateway.supervisor.messages import HandOver
from gateway.supervisor.redis_server import EmbeddedRedis, find_binary
from gateway.supervisor.run_directory import RunDirectory
from gateway.supervisor.worker_files import WorkerFiles
from gateway.telemetry.metrics import Metrics


class Shared:
    """The listening sockets, the board, the files, and the servers behind the workers."""

    def __init__(
        self,
        settings: Settings,
        config: Path | None,
        overrides: dict[str, Any],
        *,
        node: str,
        ending: Ending,
        rng: random.Random,
        metrics: Metrics,
    ) -> None:
        """
        Args:
            settings: of the gateway.
            config: the settings file, which each worker reads too.
            overrides: of the command line, by dotted key.
            node: the name of this process.
            ending: hears why a server can no longer be kept running.
            rng: source of jitter.
            metrics: of this process.

        Raises:
            RedisNotStarted: there is no Redis for the workers.
        """
        data_dir = settings.nats.data_dir
        self._settings = settings
        self._config = config
        self._node = node
        self._overrides = {name: value for name, value in overrides.items() if value is not None}
        self._listening: list[socket.socket] = []
        self._page = make_page(settings.worker_count)
        self._board = Board(self._page, settings.worker_count)
        self.run = RunDirectory(data_dir)
        self.files = WorkerFiles(data_dir, wall=time.time)
        self.nats = None if settings.nats.urls else _nats(settings, ending, rng, metrics)
        self.redis: EmbeddedRedis | None = None
        if settings.cluster.redis_url is None:
            find_binary()
            restarts = metrics.counter(
                "tidegate_redis_server_restarts", "Times the embedded Redis died and came back."
            )
            self.redis = EmbeddedRedis(
                self.run.redis,
                log_file=data_dir / "redis.log",
                rng=rng,
                on_restart=restarts.inc,
                on_failure=ending.fail,
            )

    @property
    def port(self) -> int:
        """Where devices connect, once it has started."""
        return port_of(self._listening) if self._listening else self._settings.server.port

    async def start(self) -> None:
        """Bind the port of the devices, and have the files that workers read.

        Raises:
            ListenError: the address cannot be bound.
            DataDirectoryError, OSError: a file can be neither read nor made.
        """
        server, credentials = self._settings.server, self._settings.credentials
        self.run.start()
        try:
            self._listening = await bind(server.host, server.port, server.backlog)
        except OSError as exc:
            raise ListenError(server.host, server.port, exc) from exc
        secrets = self._settings.admission.ticket_secrets
        self.files.load([secret.get_secret_value().encode() for secret in secrets])
        if credentials.jwks_file is None and credentials.jwks_url is None:
            development.ensure_key(self._settings.nats.data_dir)

    def stop(self) -> None:
        """Close the port of the devices, and remove what is of this run only."""
        for each in self._listening:
            each.close()
        self._board.close()
        os.close(self._page)
        self.run.stop()

    def hand_over(self, number: int) -> HandOver:
        """What a worker is to be."""
        workers = self._settings.worker_count
        overrides = {name: _plain(value) for name, value in self._overrides.items()}
        if self.redis is not None:
            overrides["cluster.redis_url"] = self.redis.url
            # While Redis is away, a worker has its share of R.
            overrides["cluster.assumed_nodes"] = workers
        return HandOver(
            worker=number,
            workers=workers,
            gateway=self._node,
            config=None if self._config is None else str(self._config),
            overrides=overrides,
            listening=[each.fileno() for each in self._listening],
            page=self._page,
            nats_url=None if self.nats is None else self.nats.url,
            ops_socket=str(self.run.worker(number)),
        )

    def worker_ended(self, number: int) -> None:
        """A process of a worker has ended: the others must not leave connections to it."""
        self._board.clear(number - 1)


def _nats(
    settings: Settings, ending: Ending, rng: random.Random, metrics: Metrics
) -> EmbeddedServer:
    restarts = metrics.counter(
        "tidegate_nats_server_restarts", "Times the embedded nats-server died and came back."
    )
    return embedded_server(settings, rng=rng, on_restart=restarts.inc, on_failure=ending.fail)


def _plain(value: Any) -> Any:
    """An override as JSON has it."""
    if isinstance(value, Path):
        return str(value)
    return list(value) if isinstance(value, tuple) else value
