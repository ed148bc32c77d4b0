"""SIGHUP and the settings: those that can change live do, and the others are named."""

from collections.abc import Callable

import structlog

from gateway.node.ops.steering import Steering
from gateway.settings import Settings, SettingsError
from gateway.settings.changes import LIVE, changed

_log = structlog.get_logger(__name__)


class LiveSettings:
    """Reads the settings again."""

    def __init__(
        self, settings: Settings, read: Callable[[], Settings] | None, steering: Steering
    ) -> None:
        """
        Args:
            settings: those that the gateway was started with.
            read: reads them anew, from the same sources; None if they have no source.
            steering: takes over what can change live.
        """
        self._started_with = settings
        self._live = settings
        self._read = read
        self._steering = steering

    def reload(self) -> None:
        """Read them again. What cannot be used changes nothing."""
        if self._read is None:
            return
        try:
            settings = self._read()
        except SettingsError as exc:
            _log.error("settings_reload_failed", error=str(exc))  # the message is whole
            return
        taken = [name for name in changed(self._live, settings) if name in LIVE]
        waiting = [name for name in changed(self._started_with, settings) if name not in LIVE]
        self._live = settings
        self._steering.rebase(settings)
        _log.info("settings_reloaded", changed=taken, need_restart=waiting)
