"""What can be wrong in a conformance run.

ConformanceError
 +-- Mismatch    the client did something else than the exchange says
 +-- ScriptError the list of exchanges is not understood
"""


class ConformanceError(Exception):
    """Base of this room's errors."""


class Mismatch(ConformanceError):
    """The client did something else than the exchange says."""


class ScriptError(ConformanceError):
    """The list of exchanges is not understood."""
