"""Rules that are wrong on purpose: what checks rules must find them out.

python tests/support/broken_route.py no-look-up route --events=...
"""

import sys

from gateway.cli import main
from gateway.consumers.delivery.nats_delivery import NatsDelivery


async def _no_look_up(self, _after_seq, mark):
    """The duplicate window is trusted, however long the rule stood still."""
    self._known, self.mark = set(), mark


if __name__ == "__main__":
    control = sys.argv.pop(1)
    assert control == "no-look-up", control
    NatsDelivery.resume = _no_look_up
    main()
