"""The streams and the embedded server as the settings want them, and `tidegate provision`."""

import contextlib
import random
from collections.abc import AsyncIterator, Callable

from nats.aio.client import Client

from gateway.data_directory import DataDirectoryLock
from gateway.errors import DataDirectoryInUse
from gateway.nats_access import nats_address
from gateway.settings import Retention, Settings
from gateway.stream.link.dialing import connect_once
from gateway.stream.names import STREAMS
from gateway.stream.provisioning.differences import Change
from gateway.stream.provisioning.provision import (
    StreamSettings,
    apply,
    plan,
    server_version,
    stream_configs,
)
from gateway.stream.server.nats_server import EmbeddedServer
from gateway.stream.server.roles import Role


def stream_settings(settings: Settings) -> dict[str, StreamSettings]:
    """What the settings want of each stream."""
    stream = settings.stream

    def wanted(retention: Retention) -> StreamSettings:
        return StreamSettings(
            replicas=stream.replicas,
            max_age_s=retention.max_age_s,
            max_bytes=retention.max_bytes,
            duplicate_window_s=stream.duplicate_window_s,
            deny_delete=stream.deny_delete,
            deny_purge=stream.deny_purge,
        )

    return {name: wanted(getattr(stream, name.lower())) for name in STREAMS}


def embedded_server(
    settings: Settings,
    *,
    rng: random.Random,
    on_restart: Callable[[], None],
    on_failure: Callable[[BaseException], None],
) -> EmbeddedServer:
    """The embedded nats-server. Hold the lock of the data directory before you start it."""
    return EmbeddedServer(
        settings.nats.data_dir,
        fsync=settings.stream.durability == "fsync",
        batch_messages_max=settings.publish.batch_messages,
        port=settings.nats.embedded_port,
        rng=rng,
        on_restart=on_restart,
        on_failure=on_failure,
        rule_subjects=settings.nats.embedded_rule_subjects,
    )


async def provision_streams(
    settings: Settings, *, make: bool, accept_loss: bool, say: Callable[[str], None]
) -> bool:
    """Show how the streams differ from the settings, and change them.

    If the settings name the embedded server and no gateway runs, this starts the server meanwhile.

    Args:
        settings: of the gateway.
        make: make the changes; else only show them.
        accept_loss: make changes that delete stored messages, too.
        say: is called with each line for the operator.

    Returns:
        Whether the streams are as the settings want them, or would be.

    Raises:
        StreamError: NATS cannot be reached.
        GatewayError: the data directory cannot be used.
        nats.errors.Error: JetStream did not answer, or refused a change.
    """
    async with operators_client(settings, name="tidegate-provision") as client:
        configs = stream_configs(stream_settings(settings), server_version(client))
        planned = await plan(client, configs)
        for name in planned.missing:
            say(f"{name}: missing; it is created")
        for difference in planned.differences:
            say(f"{difference}; {_outlook(difference.change, difference.advice, accept_loss)}")
        if planned.empty:
            say("the streams are as the settings want them")
            return True
        if not make:
            say("nothing was changed; --apply makes the changes")
        else:
            await apply(client, configs, accept_loss=accept_loss)
            planned = await plan(client, configs)
            say("done" if planned.empty else f"differences left: {len(planned.differences)}")
        return planned.empty


def _outlook(change: Change, advice: str, accept_loss: bool) -> str:
    if change is Change.IMPOSSIBLE:
        return f"JetStream cannot change it: {advice}"
    if change is Change.LOSES:
        if accept_loss:
            return "it is changed, and messages over the new limit are deleted"
        return "not changed, since it deletes messages over the new limit; allow it: --accept-loss"
    return "it is changed"


@contextlib.asynccontextmanager
async def operators_client(settings: Settings, *, name: str) -> AsyncIterator[Client]:
    """A connection as operator: to `nats.urls`, a running gateway's server, or one started here.

    Args:
        settings: of the gateway.
        name: how the server lists the connection.

    Raises:
        StreamError: NATS cannot be reached.
        GatewayError: the data directory cannot be used.
    """
    async with contextlib.AsyncExitStack() as parts:
        url = None
        lock = DataDirectoryLock(settings.nats.data_dir)
        if not settings.nats.urls and _try(lock):
            parts.callback(lock.release)
            server = embedded_server(
                settings, rng=random.Random(), on_restart=lambda: None, on_failure=lambda _exc: None
            )
            parts.push_async_callback(server.stop)
            await server.start()
            url = server.url_of(Role.OPERATORS)
        address = nats_address(settings, Role.OPERATORS, embedded_url=url)
        client = await connect_once(address, name=name)
        parts.push_async_callback(client.discard)
        yield client


def _try(lock: DataDirectoryLock) -> bool:
    """Take the lock; False if a gateway holds it."""
    try:
        lock.acquire()
    except DataDirectoryInUse:
        return False
    return True
