"""Why the settings cannot be used: a branch of the tree in `gateway/errors.py`."""

from gateway.errors import GatewayError


class SettingsError(GatewayError, ValueError):
    """The settings cannot be used. The message has a line for each offence, naming its key."""
