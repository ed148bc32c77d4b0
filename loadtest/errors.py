"""What keeps a load test from telling anything.

LoadtestError
 +-- TargetError   a server under test did not start, or died
 +-- ScenarioError a scenario file cannot be used
 +-- LimitError    this machine cannot hold the load (descriptors, ports)
 +-- Refused       the gateway refused a knock (`devices/gevent_link.py`)
"""


class LoadtestError(Exception):
    """Base of this room's errors."""


class TargetError(LoadtestError):
    """A server under test did not start, or died. The message has its last words."""


class LimitError(LoadtestError):
    """This machine cannot hold the load. The message says what mends it."""


class ScenarioError(LoadtestError):
    """A scenario cannot be used. The message has a line for each offence, naming its key."""
