"""A worker: a gateway process under a supervisor."""

import socket
import sys
from functools import partial
from pathlib import Path

import structlog
import uvloop

from gateway import tasks
from gateway.app import Gateway
from gateway.expected_errors import EXPECTED
from gateway.node.board import Board
from gateway.node.place import WorkerPlace
from gateway.settings import load_settings, secrets_of
from gateway.supervisor.messages import Failed, HandOver, Listening, Serving
from gateway.supervisor.supervisor_link import SupervisorLink
from gateway.telemetry.logs import configure_logs

_log = structlog.get_logger(__name__)


def main() -> None:
    """Be a worker; the supervisor is at the other end of the socket that the arguments name."""
    control = socket.socket(fileno=int(sys.argv[2]))
    sys.exit(uvloop.run(_work(control)))


async def _work(control: socket.socket) -> int:
    """Be a worker to the end.

    Returns:
        The status of the process.
    """
    link = await SupervisorLink.of(control)
    try:
        await _serve(link, await link.hand_over())
    except EXPECTED as exc:
        link.say(Failed(str(exc)))
        _log.error("worker_failed", error=str(exc))  # the message is whole
        return 1
    except Exception as exc:
        link.say(Failed(repr(exc)))
        raise
    finally:
        await link.close()
    return 0


async def _serve(link: SupervisorLink, given: HandOver) -> None:
    config = None if given.config is None else Path(given.config)
    read_settings = partial(load_settings, config, overrides=given.overrides)
    settings = read_settings()
    configure_logs(
        settings.log.level,
        settings.log.format,
        secrets=[*secrets_of(settings), *([given.nats_url] if given.nats_url else [])],
        worker=given.worker,
    )
    gateway = Gateway(settings, read_settings=read_settings, place=_place(link, given))
    crew = tasks.Crew(gateway.basis.ending.fail)
    listening = crew.start(link.run(gateway.drain, gateway.operators.snapshot), "supervisor")
    try:
        await gateway.run(on_ready=lambda _gateway: link.say(Serving()))
    finally:
        if not listening.done():
            await crew.close()


def _place(link: SupervisorLink, given: HandOver) -> WorkerPlace:
    return WorkerPlace(
        number=given.worker,
        gateway=given.gateway,
        listening=[_listening(descriptor) for descriptor in given.listening],
        board=Board(given.page, given.workers),
        nats_url=given.nats_url,
        ops_socket=Path(given.ops_socket),
        write=link.write,
        write_soon=link.write_soon,
        on_listening=lambda: link.say(Listening()),
        leaving=link.leaving,
    )


def _listening(descriptor: int) -> socket.socket:
    inherited = socket.socket(fileno=descriptor)
    inherited.setblocking(False)
    return inherited
