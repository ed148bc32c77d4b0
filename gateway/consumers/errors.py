"""What stops a consumer, or makes it wait.

ConsumerError
 +-- TargetRefused   the target refuses events until an operator changes something
 +-- TargetAway      the target does not work right now: wait, with jitter, and try again
      +-- TargetSlow    it did not finish in time: try again with less
 +-- NotOwner        another process owns this consumer now: stand by
"""


class ConsumerError(Exception):
    """Root of this room."""


class TargetRefused(ConsumerError):
    """The target refuses for a reason that waiting does not cure; the message names it."""


class TargetAway(ConsumerError):
    """The target is away, starting, full or slow."""


class TargetSlow(TargetAway):
    """A batch took longer than the target allows."""


class NotOwner(ConsumerError):
    """The consumer's position belongs to another process."""
