"""A wall clock that can be wrong, for servers under test."""

from pathlib import Path


class FakeClock:
    """The wall clock of processes that run under libfaketime (`apt-get install faketime`)."""

    def __init__(self, directory: Path) -> None:
        """
        Args:
            directory: for the file that libfaketime reads; it exists.
        """
        self._file = directory / "clock"
        self.set(0)

    @staticmethod
    def library() -> Path | None:
        """Where libfaketime is installed, if it is."""
        return next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), None)

    def set(self, offset_s: int) -> None:
        """Let the clock be `offset_s` ahead of the real one from now on."""
        aside = self._file.with_suffix(".new")
        aside.write_text(f"{offset_s:+d}\n")
        aside.replace(self._file)  # so that no process reads half a line

    @property
    def environment(self) -> dict[str, str]:
        """The variables that put a process under this clock."""
        return {
            "LD_PRELOAD": str(self.library()),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }
