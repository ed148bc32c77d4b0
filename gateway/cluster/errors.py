"""What can go wrong between nodes.

ClusterError
 +-- RedisUnavailable   Redis does not do what it was asked; the node works alone until it does
      +-- RedisRefused  Redis answers and refuses: a setting must change, on the node or in Redis
"""

from typing import Final

REASONS: Final = (
    "unreachable",
    "no_answer",
    "loading",
    "read_only",
    "out_of_memory",
    "error",
    "wrong_password",
    "no_permission",
    "certificate",
)
"""Why Redis cannot be used; the labels of a metric."""


class ClusterError(Exception):
    """Base of this room's errors."""


class RedisUnavailable(ClusterError):
    """Redis cannot be used now. The message says why, without the URL of Redis.

    `reason` is one of `REASONS`.
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"Redis: {reason.replace('_', ' ')}" + (f" ({detail})" if detail else ""))
        self.reason = reason
        self.detail = detail


class RedisRefused(RedisUnavailable):
    """A mistake, not an outage: the password, a right or a certificate is wrong."""
