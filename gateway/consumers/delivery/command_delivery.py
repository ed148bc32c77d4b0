"""Delivery as a command to the device which sent the event. Its `ok` is the receipt.

At least once, as far as attempts reach. Each attempt that failed says why: no node holds the
device (`offline`), the device did not answer in time (`no_answer`), it has no handler for the
command or the request is malformed (`not_understood`), it does not read (`busy`), or it refused.
"""

import random
from collections.abc import Sequence

import msgspec
import nats.errors
from msgspec import Raw, Struct

from gateway.consumers.delivery.attempts import deliver_each
from gateway.consumers.errors import AttemptFailed, TargetAway
from gateway.consumers.target import Rejected
from gateway.consumers.tracing import onward
from gateway.events.destinations import CommandDestination
from gateway.events.errors import PickError
from gateway.events.event import Event
from gateway.events.hops import HOPS_HEADER, hops_of
from gateway.events.payloads import Picker
from gateway.events.rules import Rule
from gateway.stream.commands.requests import NOT_UNDERSTOOD
from gateway.stream.reading.reader import Link


class _Command(Struct):
    type: str
    data: Raw


class _Data(Struct):
    error: str = ""


class _Result(Struct):
    ok: bool = False
    error: str = ""
    detail: str = ""
    data: Raw = Raw(b"null")  # Raw is immutable


class CommandDelivery:
    """The target of one rule. Satisfies `Delivery`."""

    mark = 0
    finds_again = False
    ahead = 1

    def __init__(
        self,
        rule: Rule,
        destination: CommandDestination,
        link: Link,
        rng: random.Random,
        *,
        traced: bool = False,
    ) -> None:
        """
        Args:
            rule: whose target it is.
            destination: names the type of the command.
            link: the connection to NATS.
            rng: source of jitter.
            traced: whether requests name the span of the rule; see `Deriver`.
        """
        self._rule = rule
        self._type = destination.message_type
        self._link = link
        self._rng = rng
        self._traced = traced
        self._picker = Picker(rule.pick) if rule.pick is not None else None

    async def open(self) -> None:
        if self._link.client is None:
            raise TargetAway("NATS is away")

    async def begin(self) -> None:
        """A device has no position."""

    async def resume(self, after_seq: int, mark: int) -> None:
        """What was sent behind the position is sent again."""

    def send(self, events: Sequence[Event]) -> None:
        """Requests begin when they are delivered."""

    async def deliver(self, events: Sequence[Event]) -> Sequence[Rejected]:
        return await deliver_each(self._rule, events, self._attempt, self._rng)

    async def close(self) -> None:
        """The connection is the process's."""

    async def _attempt(self, event: Event) -> None:
        client = await self._link.wait_up()
        try:
            data = event.data if self._picker is None else self._picker.payload(event)
        except PickError as exc:
            raise AttemptFailed("pick", str(exc), final=True) from None
        body = msgspec.json.encode(_Command(self._type, Raw(data)))
        subject = f"commands.{event.tenant}.{event.device}"
        try:
            answer = await client.request(
                subject,
                body,
                timeout=self._rule.timeout_ms / 1000,
                headers=_headers(event, self._rule.name, self._traced),
            )
        except nats.errors.NoRespondersError:
            raise AttemptFailed("offline", "no node holds the device") from None
        except TimeoutError:
            raise AttemptFailed("no_answer", "the device did not answer in time") from None
        except nats.errors.Error as exc:
            raise AttemptFailed("connection", str(exc) or type(exc).__name__) from None
        try:
            result = msgspec.json.decode(answer.data, type=_Result)
        except msgspec.DecodeError as exc:
            raise AttemptFailed("answer", f"the answer cannot be read: {exc}") from None
        if not result.ok:
            raise _failure(result)


def _headers(event: Event, rule: str, traced: bool) -> dict[str, str]:
    """Of a request; the gateway tells the device its trace."""
    found = {HOPS_HEADER.decode(): str(hops_of(event) + 1)}
    trace = onward(event, f"rule/{rule}") if traced else event.header(b"traceparent")
    if trace:
        found["traceparent"] = trace
    return found


def _failure(result: _Result) -> AttemptFailed:
    """What an answer without success means. What was not understood is not understood next time."""
    error, detail = result.error, result.detail
    if not error:
        try:
            error = msgspec.json.decode(result.data, type=_Data).error
        except msgspec.DecodeError:
            error = ""
    if error == NOT_UNDERSTOOD:
        return AttemptFailed(error, detail or "the device knows no such command", final=True)
    return AttemptFailed(result.error or "refused", detail or "the device said no")
