"""The composition of `tidegate route`: makes the target of each rule, and what rules read with."""

import random
import time
from collections.abc import Sequence

from gateway.consumers.delivery.batch_writer import BatchWriters
from gateway.consumers.delivery.command_delivery import CommandDelivery
from gateway.consumers.delivery.http_delivery import HttpDelivery
from gateway.consumers.delivery.nats_delivery import NatsDelivery
from gateway.consumers.delivery.protocol import Delivery
from gateway.consumers.lease import Lease
from gateway.consumers.lease_bucket import LeaseBucket
from gateway.consumers.progress import Progress
from gateway.consumers.reading import ReadingOf
from gateway.consumers.rules.rule_target import RuleTarget
from gateway.consumers.rules.shared_reading import SharedReaders, SharedReading
from gateway.consumers.target import Consumption
from gateway.events.destinations import HttpDestination, NatsDestination
from gateway.events.redrives import redrives_name
from gateway.events.rules import Rule
from gateway.stream.reading.reader import Link


def rule_readings(rules: Sequence[Rule], link: Link, rng: random.Random) -> ReadingOf:
    """Readers that rules with equal filters share."""
    readers = SharedReaders(rules, link, rng)

    def reading(rule: Consumption, progress: Progress) -> SharedReading:
        assert isinstance(rule, Rule)
        return readers.reading(rule, progress)

    return reading


class RuleTargets:
    """Makes the targets of the rules of one process, which share batches."""

    def __init__(self, *, traced: bool = False) -> None:
        """
        Args:
            traced: whether the process exports spans of its rules.
        """
        self._writers = BatchWriters()
        self._buckets: dict[Link, LeaseBucket] = {}
        self._traced = traced

    def of(self, rule: Rule, owner: str, link: Link) -> RuleTarget:
        """The target of a rule for one owner, on the process's connection."""
        lease = Lease(self._bucket(link), rule.name, owner, time.monotonic)
        return RuleTarget(rule, lease, self._delivery(rule, lease, link, redrives=False))

    def of_redrives(self, rule: Rule, owner: str, link: Link) -> RuleTarget:
        """The target for what is sent again to a rule: the same, with a position of its own."""
        lease = Lease(self._bucket(link), redrives_name(rule.name), owner, time.monotonic)
        return RuleTarget(rule, lease, self._delivery(rule, lease, link, redrives=True))

    def _bucket(self, link: Link) -> LeaseBucket:
        """A process has one connection."""
        return self._buckets.setdefault(link, LeaseBucket(link))

    def _delivery(self, rule: Rule, lease: Lease, link: Link, *, redrives: bool) -> Delivery:
        to = rule.to
        if isinstance(to, NatsDestination):
            writers = self._writers
            return NatsDelivery(
                rule, to, link, lease.check, writers, redrives=redrives, traced=self._traced
            )
        if isinstance(to, HttpDestination):
            return HttpDelivery(rule, to, random.Random(), traced=self._traced)
        return CommandDelivery(rule, to, link, random.Random(), traced=self._traced)
