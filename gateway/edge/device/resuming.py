"""Asks the stream where the outbox of a device stands, between its hello and the answer."""

import asyncio
from collections.abc import Callable
from functools import partial

import structlog

from gateway.edge.device.context import DeviceContext
from gateway.session.errors import InternalError, SessionError
from tidegate.wire import frames

_log = structlog.get_logger(__name__)


def ask(
    context: DeviceContext,
    key: tuple[str, str],
    hello: frames.Hello,
    answer: Callable[[frames.Hello, int], None],
    end: Callable[[SessionError], None],
) -> asyncio.Task[None]:
    """Start a look-up.

    Args:
        context: what all devices of a node share.
        key: tenant and device.
        hello: names the outbox.
        answer: takes the hello and the last settled seq of its outbox.
        end: ends the session. A look-up that failed must not leave the device waiting.

    Returns:
        The running look-up. Cancel it when the connection is gone.
    """
    asking = context.loop.create_task(_look_up(context, key, hello, answer), name="resume")
    asking.add_done_callback(partial(_looked_up, end))
    return asking


async def _look_up(
    context: DeviceContext,
    key: tuple[str, str],
    hello: frames.Hello,
    answer: Callable[[frames.Hello, int], None],
) -> None:
    answer(hello, await context.resume_points.look_up(*key, hello))


def _looked_up(end: Callable[[SessionError], None], asking: asyncio.Task[None]) -> None:
    if not asking.cancelled() and (failure := asking.exception()) is not None:
        _log.error("look_up_failed", exc_info=failure)
        end(InternalError("where the outbox stands could not be looked up"))
