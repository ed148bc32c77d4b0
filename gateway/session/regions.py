"""The states of a device's session, region by region. `machine.py` draws how they follow."""

import enum


class State(enum.Enum):
    GREETING = "greeting"
    RESUMING = "resuming"
    ESTABLISHED = "established"
    CHANGING = "changing"
    ENDED = "ended"


class Departure(enum.Enum):
    STAYING = "staying"
    LEAVING = "leaving"
    PARTING = "parting"
    GONE = "gone"


class Settled(enum.Enum):
    """What the shell does after `settle`."""

    NOTHING = "nothing"
    ACKNOWLEDGE = "acknowledge"
    """Send the ack (`take_ack`) now."""
    REST = "rest"
    """Send the ack later: the device is greedy, and the lanes' time belongs to the others."""
    FORGET = "forget"
    """The session has ended and its last message is settled."""
