"""What can go wrong between the parts of the gateway, beside the errors of its rooms.

GatewayError
 +-- SettingsError            the settings cannot be used (`settings/errors.py`)
 +-- KeyFetchError            the JWKS can be neither read nor fetched
 +-- DataDirectoryError       the data directory cannot be used
 |    +-- DataDirectoryInUse  another process holds it
 +-- BackupError              the streams cannot be saved there, or put back
 +-- OperateError            an ops port cannot be asked, or refuses (`commands/operate.py`)
"""


class GatewayError(Exception):
    """Base of the composition's errors."""


class KeyFetchError(GatewayError):
    """The JWKS can be neither read nor fetched."""


class DataDirectoryError(GatewayError):
    """The data directory cannot be used. The message says why."""


class DataDirectoryInUse(DataDirectoryError):
    """Another process holds the data directory. The message names it."""


class BackupError(GatewayError):
    """The streams cannot be saved to a directory, or put back from one. The message says why."""
