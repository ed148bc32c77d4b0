"""What can go wrong between the parts of the gateway, beside the errors of its rooms.

GatewayError
 +-- DataDirectoryError       the data directory cannot be used; another gateway may hold it
"""


class GatewayError(Exception):
    """Base of the composition's errors."""


class DataDirectoryError(GatewayError):
    """The data directory cannot be used. The message says why, and who holds it."""
