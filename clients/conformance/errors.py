"""The errors of a conformance run.

ConformanceError
 +-- Mismatch    the client did something other than the exchange demands
 +-- ScriptError the list of exchanges has a mistake
"""


class ConformanceError(Exception):
    """Base of this room's errors."""


class Mismatch(ConformanceError):
    """The client did something other than the exchange demands."""


class ScriptError(ConformanceError):
    """The list of exchanges has a mistake."""
