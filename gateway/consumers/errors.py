"""What stops a consumer, or makes it wait.

ConsumerError
 +-- TargetRefused   the target refuses events until an operator changes something
 +-- TargetAway      the target does not work right now: wait, with jitter, and try again
      +-- TargetSlow    it did not finish in time: try again with less
 +-- NotOwner        another process owns this consumer now: stand by
 +-- AttemptFailed   one request to a rule's target did not succeed: try again, up to a limit
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


class AttemptFailed(ConsumerError):
    """One request did not succeed. It never leaves the delivery.

    `error` is a short word for the dead letter, `wait_s` the least wait that the target asked for,
    `final` says that a repeat cannot succeed.
    """

    def __init__(
        self, error: str, detail: str, *, wait_s: float = 0.0, final: bool = False
    ) -> None:
        super().__init__(f"{error}: {detail}")
        self.error = error
        self.detail = detail
        self.wait_s = wait_s
        self.final = final
