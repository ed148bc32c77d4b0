"""A real Prometheus with the configuration of `make monitor`, against ports of the test."""

import contextlib
import json
import math
import os
import re
import shutil
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from loadtest.servers.process import Target, free_port
from support.dashboards import ALERTS


def prometheus_program() -> str:
    """Its program. Without one, the test is skipped and says so; in CI it fails."""
    found = os.environ.get("PROMETHEUS") or shutil.which("prometheus")
    if found is None:
        missing = "NO PROMETHEUS: the dashboards are NOT tested against one (make debian)"
        if os.environ.get("CI"):
            pytest.fail(missing)
        pytest.skip(missing)
    return found


class Prometheus(Target):
    """The server; it scrapes and evaluates every second."""

    name = "prometheus"

    def __init__(self, directory: Path, program: str, ports: Mapping[int, int]) -> None:
        """
        Args:
            directory: for its files.
            program: Prometheus.
            ports: what listens in the test for each port that the configuration names.
        """
        super().__init__(directory)
        self._program = program
        directory.mkdir(parents=True)
        text = (ALERTS.parent / "prometheus.yml").read_text()
        found = {int(port) for port in re.findall(r"127\.0\.0\.1:(\d+)", text)}
        assert found == set(ports), "a target that the test does not serve"
        for port, ours in ports.items():
            text = text.replace(f"127.0.0.1:{port}", f"127.0.0.1:{ours}")
        text = re.sub(r"(?<=_interval: )5s", "1s", text)
        (directory / "prometheus.yml").write_text(text)
        shutil.copy(ALERTS, directory)

    def command(self) -> list[str]:
        return [
            self._program,
            f"--config.file={self.directory / 'prometheus.yml'}",
            f"--storage.tsdb.path={self.directory / 'data'}",
            f"--web.listen-address=127.0.0.1:{self.port}",
            "--log.level=warn",
        ]

    def figures(self, expression: str) -> list[float]:
        """What an instant query returns now, without NaN.

        Raises:
            AssertionError: Prometheus refuses the expression.
        """
        query = urllib.parse.urlencode({"query": expression})
        url = f"http://127.0.0.1:{self.port}/api/v1/query?{query}"
        try:
            with urllib.request.urlopen(url, timeout=10) as response:
                result = json.load(response)["data"]["result"]
        except urllib.error.HTTPError as exc:
            if exc.code == 503:  # it still starts
                return []
            raise AssertionError(f"{expression}: {exc.read().decode()}") from None
        values = [float(sample["value"][1]) for sample in result]
        return [value for value in values if not math.isnan(value)]


@contextlib.contextmanager
def prometheus(directory: Path, ports: Mapping[int, int]) -> Iterator[Prometheus]:
    with Prometheus(directory, prometheus_program(), ports) as server:
        yield server


__all__ = ["free_port", "prometheus"]
