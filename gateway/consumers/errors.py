"""What stops a consumer, or makes it wait.

ConsumerError
 +-- TargetRefused   the target will not take events until somebody changes something
 +-- TargetAway      the target does not work right now: wait, with jitter, and try again
 +-- NotOwner        another process owns this consumer now: stand by
"""


class ConsumerError(Exception):
    """Root of this room."""


class TargetRefused(ConsumerError):
    """The target says no for a reason that waiting does not mend; the message names it."""


class TargetAway(ConsumerError):
    """The target is away, starting, full or slow."""


class NotOwner(ConsumerError):
    """The consumer's position belongs to another process."""
