"""What can go wrong between nodes.

ClusterError
 +-- RedisUnavailable   Redis does not answer; each node goes on alone until it does
"""


class ClusterError(Exception):
    """Base of this room's errors."""


class RedisUnavailable(ClusterError):
    """Redis does not answer. The message says why, without its URL."""
