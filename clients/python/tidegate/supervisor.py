"""What keeps a device connected: one attempt after another, and the verdict on what ends each.

All tasks of a device live under `Supervisor.run`. Whatever ends one of them is either

- the peer's, the network's or the disk's fault: a failed attempt, told and followed by another, or
- the application's (`DeviceError`): the device ends, and every call that waits says why.

What is neither is a fault of this client. It is logged with its traceback and taken for a failed
attempt, because a vehicle that tries again is better than one that waits for its mechanic.
"""

import asyncio
import logging
from typing import Final

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed, WebSocketException

from tidegate.answers import Meaning, Refusal, read_close
from tidegate.clock import Clock
from tidegate.connector import Connector, NotAGateway, Refused, Silent
from tidegate.errors import DeviceError, OutboxError, Unreachable
from tidegate.runner import Gear, MovedOn, SentAway, SessionRunner
from tidegate.session import ProtocolViolation
from tidegate.wallet import ProviderFailed

_log = logging.getLogger("tidegate.device")

_POLICY_VIOLATION: Final = 1008
_ABNORMAL: Final = 1006
_TEND_INTERVAL_S: Final = 5.0


class Supervisor:
    """Keeps one session up."""

    def __init__(self, gear: Gear, connector: Connector, clock: Clock) -> None:
        self._gear = gear
        self._connector = connector
        self._clock = clock
        self._current: SessionRunner | None = None
        self._old: SessionRunner | None = None
        self._fault: asyncio.Future[None]

    async def run(self) -> None:
        """Until cancelled, or until the application's fault ends the device."""
        self._fault = asyncio.get_running_loop().create_future()
        tasks = [
            asyncio.create_task(self._keep_up(), name="tidegate-connect"),
            asyncio.create_task(self._tend(), name="tidegate-tend"),
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
                self._fault.exception()  # seen, if something else ended the device too
            # Whatever ended it, nobody may wait for what cannot come any more.
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
            except (OutboxError, OSError, WebSocketException, ProtocolViolation) as exc:
                self._failed(f"{type(exc).__name__}: {exc}")
            except DeviceError:
                raise
            except Exception as exc:  # noqa: BLE001  # the one place; see the module's rules
                _log.exception("a fault of this client; trying again")
                self._failed(f"internal: {type(exc).__name__}")

    async def _wait_for_turn(self) -> None:
        """Wait as the policy says; never less, whatever the timers' resolution."""
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
            connection = await self._connector.connect(gear.urls.current, token, gear.policy.ticket)
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
            # With a ticket it is in the queue: no trouble, but a word for who asks.
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

    async def _serve(self, connection: ClientConnection) -> None:
        """Serve a session until it ends, or until it is sent away and left open behind us."""
        gear = self._gear
        began = self._clock.monotonic()
        self._current = runner = SessionRunner(connection, gear)
        try:
            await runner.run(self._welcomed)
        except SentAway:
            self._keep_open(runner)
            self._closed(began)
        except MovedOn:
            gear.policy.moved_on()
        except ConnectionClosed as exc:
            self._closed(began)
            await self._on_closed(runner, exc)
        except TimeoutError:
            self._closed(began)
            gear.status.trouble("the gateway did not answer a hello")
        except BaseException:
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
        # Made before broken: only now is the connection that sent us here given up.
        await self._retire_old()

    async def _on_closed(self, runner: SessionRunner, exc: ConnectionClosed) -> None:
        gear = self._gear
        code = exc.rcvd.code if exc.rcvd is not None else _ABNORMAL
        reason = exc.rcvd.reason if exc.rcvd is not None else ""
        refusal = read_close(code, reason, gear.wallet.token)
        gear.status.trouble(f"closed: {refusal}", failed=gear.policy.failures > 0)
        if refusal.meaning is Meaning.CREDENTIAL:
            gear.status.last_refusal = refusal
            gear.wallet.expired(refusal.detail or refusal.error)
        elif refusal.meaning is Meaning.WAIT:
            gear.status.last_refusal = refusal
            gear.status.knocks.refusals += 1
            gear.policy.refused(refusal.retry_ms, refusal.ticket)
        elif refusal.meaning is Meaning.OFFENCE:
            # Takeover or offence: coming straight back would do it again.
            gear.status.last_refusal = refusal
            gear.policy.failed()
        if code == _POLICY_VIOLATION and runner.extended and not runner.welcomed:
            # A gateway from before `features`: the next hello is plain.
            await gear.store.remember_features(False)

    # The connection that sent us away

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
    """Why the device ends. Only the application can make it end; all else is a fault of ours."""
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
