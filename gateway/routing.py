"""The composition of `tidegate route`: makes the target of each rule."""

import random
import time

from gateway.consumers.command_delivery import CommandDelivery
from gateway.consumers.delivery import Delivery
from gateway.consumers.http_delivery import HttpDelivery
from gateway.consumers.lease import Lease
from gateway.consumers.nats_delivery import NatsDelivery
from gateway.consumers.rule_target import RuleTarget
from gateway.events.destinations import HttpDestination, NatsDestination
from gateway.events.rules import Rule
from gateway.stream.reader import Link


def rule_target(rule: Rule, owner: str, link: Link) -> RuleTarget:
    """The target of a rule for one owner, on the process's connection."""
    lease = Lease(link, rule.name, owner, time.monotonic)
    return RuleTarget(rule, lease, _delivery(rule, lease, link))


def _delivery(rule: Rule, lease: Lease, link: Link) -> Delivery:
    destination = rule.to
    if isinstance(destination, NatsDestination):
        return NatsDelivery(rule, destination, link, lease.check)
    if isinstance(destination, HttpDestination):
        return HttpDelivery(rule, destination, random.Random())
    return CommandDelivery(rule, destination, link, random.Random())
