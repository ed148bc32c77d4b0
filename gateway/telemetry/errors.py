"""Why traces cannot be exported.

TelemetryError
 +-- ExtraMissing     the packages of the extra `otel` are not installed
 +-- BadHeadersFile   the file of headers cannot be used
"""


class TelemetryError(Exception):
    """Base of this room's errors."""


class ExtraMissing(TelemetryError):
    """The packages of the extra `otel` are not installed. The message says how to install them."""


class BadHeadersFile(TelemetryError):
    """The file of headers cannot be used. The message names the line, and holds no value."""
