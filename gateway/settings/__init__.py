"""Every setting of the gateway: one validated model from file, environment and command line.

Rising priority: defaults, TOML file, `TIDEGATE_<SECTION>__<KEY>` environment, command line. What is
unknown, of the wrong kind or contradicts another setting is an error that names the key. A secret
`x` can be read from the file that `x_file` names.

Names end with their unit: `_ms` milliseconds, `_s` seconds, `_bytes`; counts have none.
`config/gateway.toml` explains each key; a test keeps the two in step. `gateway/node/limits.py` maps
the settings to the limits of the rooms, which never see the settings.
"""

from gateway.settings.devices import Compression, Credentials, Mark, Server, Tls
from gateway.settings.errors import SettingsError
from gateway.settings.loading import load_settings, secrets_of
from gateway.settings.model import Settings
from gateway.settings.services import Cluster, Ops, Retention, Trace

__all__ = [
    "Cluster",
    "Compression",
    "Credentials",
    "Mark",
    "Ops",
    "Retention",
    "Server",
    "Settings",
    "SettingsError",
    "Tls",
    "Trace",
    "load_settings",
    "secrets_of",
]
