"""Keeps a device connected: makes one attempt after another, and decides what the end of each
means.

`Supervisor.run` owns all tasks of a device. One of them can end for three reasons:

- A fault of the peer, the network or the disk. The attempt has failed, and another one follows.
- A fault of the application (`DeviceError`). The device ends, and every waiting call raises the
  reason.
- A fault of this client. It is logged with its traceback, and the attempt counts as failed. A
  vehicle that tries again is better than one that stays away until somebody repairs it.
"""

import asyncio
import logging
from typing import Final

from tidegate.answers import Meaning, Refusal, read_close
from tidegate.connection import Closed, Connect, Connection, NotAGateway, Refused, Silent
from tidegate.errors import DeviceError, OutboxError, ProtocolViolation, Unreachable
from tidegate.runner import Gear, MovedOn, SentAway, SessionRunner
from tidegate.wallet import ProviderFailed
from tidegate.wire import frames

_log = logging.getLogger("tidegate.device")

_TEND_INTERVAL_S: Final = 5.0


class Supervisor:
    """Keeps one session up."""

    def __init__(self, gear: Gear, connect: Connect) -> None:
        """Make it inside the event loop that runs it."""
        self._gear = gear
        self._connect = connect
        self._clock = gear.clock
        self._current: SessionRunner | None = None
        self._old: SessionRunner | None = None
        self._fault: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Set to the error with which a connection that was left behind ends the device."""

    async def run(self) -> None:
        """Run until cancelled, or until a fault of the application ends the device."""
        gear = self._gear
        handling = gear.handlers.run(gear.mailbox, gear.board)
        tasks = [
            asyncio.create_task(self._keep_up(), name="tidegate-connect"),
            asyncio.create_task(self._tend(), name="tidegate-tend"),
            asyncio.create_task(gear.mailbox.record(), name="tidegate-commands"),
            asyncio.create_task(gear.desired.record(), name="tidegate-state"),
            asyncio.create_task(handling, name="tidegate-handlers"),
        ]
        failure: DeviceError | None = None
        try:
            await asyncio.wait([*tasks, self._fault], return_when=asyncio.FIRST_COMPLETED)
            failure = _failure_of([*tasks, self._fault])
            _log.error("giving up: %s", failure, exc_info=failure.__cause__)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._retire_old()
            if not self._fault.cancel() and not self._fault.cancelled():
                self._fault.exception()  # retrieved, in case another failure ended the device
            # However it ended, no call may wait any longer.
            self._gear.board.end(failure)

    async def _tend(self) -> None:
        while True:
            await self._clock.sleep(_TEND_INTERVAL_S)
            await self._gear.store.tend()

    async def _keep_up(self) -> None:
        while True:
            await self._wait_for_turn()
            try:
                await self._attempt()
            except ProviderFailed as exc:
                _log.warning("%s", exc, exc_info=exc.__cause__)
                self._failed(str(exc))
            except (OutboxError, OSError, ProtocolViolation) as exc:
                self._failed(f"{type(exc).__name__}: {exc}")
            except DeviceError:
                raise
            except Exception as exc:  # noqa: BLE001  # the third reason of the module docstring
                _log.exception("a fault of this client; trying again")
                self._failed(f"internal: {type(exc).__name__}")

    async def _wait_for_turn(self) -> None:
        """Wait as long as the policy says, and never less, although timers may fire early."""
        given = self._gear.policy.has_floor
        due = self._clock.monotonic() + self._gear.policy.next_delay_ms() / 1000
        await self._clock.sleep_until(due)
        if given:
            record = self._gear.status.knocks
            record.lateness_ms = (self._clock.monotonic() - due) * 1000
            record.lateness_ms_max = max(record.lateness_ms_max, record.lateness_ms)

    async def _attempt(self) -> None:
        gear = self._gear
        token = await gear.wallet.token_to_show()
        gear.status.knocks.knocks += 1
        began = self._clock.monotonic()
        try:
            connection = await self._connect(gear.urls.current, token, gear.policy.ticket)
        except Refused as exc:
            self._on_refused(exc.refusal)
        except Silent as exc:
            gear.policy.silent((self._clock.monotonic() - began) * 1000)
            gear.urls.lost()
            gear.status.trouble(f"cannot reach {exc}")
        except NotAGateway as exc:
            gear.urls.lost()
            self._failed(str(exc))
        else:
            gear.urls.lives()
            gear.policy.opened()
            await self._serve(connection)

    def _failed(self, what: str) -> None:
        self._gear.policy.failed()
        self._gear.status.trouble(what)

    def _on_refused(self, refusal: Refusal) -> None:
        gear = self._gear
        url = gear.urls.current
        gear.status.knocks.refusals += 1
        gear.status.last_refusal = refusal
        if refusal.meaning is Meaning.WAIT:
            if refusal.wants_elsewhere:
                gear.urls.leave()
            else:
                gear.urls.lives()
            gear.policy.refused(refusal.retry_ms, refusal.ticket)
            # With a ticket the device is in the queue, which is not a failure.
            failed = refusal.ticket is None
            gear.status.trouble(f"{url} says {refusal}", failed=failed)
            return
        if refusal.meaning is Meaning.CREDENTIAL:
            gear.urls.lives()
            gear.wallet.refused(refusal.detail or refusal.error)
            gear.policy.distrusted()
            gear.status.trouble(f"{url} says {refusal}")
            return
        if refusal.meaning is Meaning.POINTLESS:
            if gear.urls.pointless():
                raise Unreachable(f"{url}: {refusal.error}: {refusal.detail}")
        else:
            gear.urls.lost()
        if refusal.meaning is Meaning.ABSENT:
            gear.policy.silent()
            gear.status.trouble(f"{url}: {refusal.status}, no gateway behind the load balancer")
        else:
            self._failed(f"{url} says {refusal}")

    async def _serve(self, connection: Connection) -> None:
        """Serve a session until it ends, or until it is sent away and stays open meanwhile."""
        gear = self._gear
        began = self._clock.monotonic()
        try:
            self._current = runner = await SessionRunner.begin(connection, gear)
            await runner.run(self._welcomed)
        except SentAway:
            self._keep_open(runner)
            self._closed(began)
        except MovedOn:
            gear.policy.moved_on()
        except Closed as exc:
            self._closed(began)
            await self._on_closed(runner, exc)
        except TimeoutError:
            self._closed(began)
            gear.status.trouble("the gateway did not answer a hello")
        except BaseException:  # however the connection ended, the policy must hear how long it held
            self._closed(began)
            raise
        finally:
            self._current = None
            self._show_connected()

    def _closed(self, began: float) -> None:
        policy = self._gear.policy
        policy.closed((self._clock.monotonic() - began) * 1000)
        if not policy.failures:
            self._gear.status.calm()

    async def _welcomed(self) -> None:
        self._gear.status.connected()
        self._show_connected()
        # The new session is established, so the connection that sent the device away can end.
        await self._retire_old()

    async def _on_closed(self, runner: SessionRunner, closed: Closed) -> None:
        gear = self._gear
        refusal = read_close(closed.code, closed.reason, gear.wallet.token)
        gear.status.trouble(f"closed: {refusal}", failed=gear.policy.failures > 0)
        if refusal.meaning is Meaning.CREDENTIAL:
            gear.status.last_refusal = refusal
            gear.wallet.expired(refusal.detail or refusal.error)
        elif refusal.meaning is Meaning.WAIT:
            gear.status.last_refusal = refusal
            gear.status.knocks.refusals += 1
            gear.policy.refused(refusal.retry_ms, refusal.ticket)
        elif refusal.meaning is Meaning.OFFENCE:
            # A takeover or an offence would happen again after an immediate reconnect.
            gear.status.last_refusal = refusal
            gear.policy.failed()
        if closed.code == frames.CLOSE_POLICY and runner.extended and not runner.welcomed:
            # This gateway is older than `features`, so the next hello must be plain.
            await gear.store.remember_features(False)

    # The connection that sent the device away

    def _keep_open(self, runner: SessionRunner) -> None:
        lingering = runner.lingering
        assert lingering is not None
        self._old = runner
        lingering.add_done_callback(self._on_old_ended)

    def _on_old_ended(self, lingering: asyncio.Task[None]) -> None:
        self._show_connected()
        if lingering.cancelled():
            return
        failure = lingering.exception()
        if isinstance(failure, DeviceError) and not self._fault.done():
            self._fault.set_exception(failure)

    async def _retire_old(self) -> None:
        if self._old is not None:
            old, self._old = self._old, None
            await old.retire()

    def _show_connected(self) -> None:
        old = self._old.lingering if self._old is not None else None
        current = self._current is not None and self._current.welcomed
        self._gear.board.set_connected(current or (old is not None and not old.done()))


def _failure_of(ended: list[asyncio.Future[None]]) -> DeviceError:
    """Why the device ends. Unless the application ended it, it is a fault of this client."""
    for each in ended:
        if not each.done() or each.cancelled():
            continue
        failure = each.exception()
        if isinstance(failure, DeviceError):
            return failure
        wrapped = DeviceError(f"a fault of this client: {failure!r}")
        wrapped.__cause__ = failure
        return wrapped
    return DeviceError("a task of this client was cancelled from outside")
