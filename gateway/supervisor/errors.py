"""Why a gateway of several workers cannot go on: a branch of the tree in `gateway/errors.py`.

GatewayError
 +-- SupervisorError
      +-- WorkerCannotStart  a worker's first start has failed
      +-- WorkerGivenUp      a worker died at once again and again
      +-- RedisNotStarted    the embedded Redis is missing, or does not start
      +-- TooManyWorkers     this machine has too few descriptors for them
"""

from gateway.errors import GatewayError


class SupervisorError(GatewayError):
    """Base of this room's errors."""


class WorkerCannotStart(SupervisorError):
    """A worker's first start has failed. The message is the worker's own reason."""


class WorkerGivenUp(SupervisorError):
    """A worker died at once again and again. The message has the last reason."""


class RedisNotStarted(SupervisorError):
    """The embedded Redis is missing, or does not start. The message says what to do."""


class TooManyWorkers(SupervisorError):
    """This machine has too few descriptors for so many workers. The message has the numbers."""
