"""The servers of a scenario: gateways, their NATS and Redis, or gateways that the user names."""

import json
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final, Self

from loadtest.devices.credentials import Issuer
from loadtest.errors import TargetError
from loadtest.lab.observations import Sample
from loadtest.lab.scenario import Scenario
from loadtest.servers.backends import NatsServer, RedisServer, synced_nats_server
from loadtest.servers.certificates import make_certificate
from loadtest.servers.gateway import GatewayServer

_SETTLE_TIMEOUT_S: Final = 30.0
_RATE: Final = re.compile(rb"^tidegate_admission_rate_per_second (\S+)", re.MULTILINE)
_LIMITED: Final = re.compile(
    rb'^tidegate_admission_limited_by\{signal="(\w+)"\} 1\.0', re.MULTILINE
)
_MEMORY: Final = re.compile(rb"^process_resident_memory_bytes (\S+)", re.MULTILINE)
_CPU: Final = re.compile(rb"^process_cpu_seconds_total (\S+)", re.MULTILINE)
_WAITING: Final = re.compile(rb"^tidegate_waiting (\S+)", re.MULTILINE)


class Visited:
    """Gateways that the lab did not start: sampled as far as their addresses are known."""

    def __init__(self, ops_urls: Sequence[str], nats_url: str | None) -> None:
        self._ops_urls = ops_urls
        self._nats_url = nats_url

    @property
    def ca_file(self) -> Path | None:
        """What devices must trust: None, which is what the system trusts."""
        return None

    def sample(self, now: float) -> Sample | None:
        """The figures of those that answer, together; None if none does."""
        pages = []
        for url in self._ops_urls:
            try:
                with urllib.request.urlopen(f"{url.rstrip('/')}/metrics", timeout=5) as answer:  # noqa: S310  # checked at start
                    pages.append(answer.read())
            except OSError:
                continue  # the report has a gap there
        if not pages:
            return None
        memory = max(int(_number(_MEMORY, page)) for page in pages)
        return sample_of(pages, now, memory, sum(_number(_CPU, page) for page in pages))

    def check(self, acked: Mapping[str, int]) -> dict[str, Any] | None:
        """What the checker finds in the stream, by kind of damage; None if it cannot read it."""
        return check(self._nats_url, acked) if self._nats_url is not None else None


class Ground:
    """Gateways that the lab starts, as a scenario describes them. A context."""

    def __init__(self, scenario: Scenario, directory: Path) -> None:
        self._scenario = scenario
        self._directory = directory
        self._stack = ExitStack()
        self.issuer = Issuer(directory / "jwks.json")
        self.gateways: list[GatewayServer] = []
        self.nats: NatsServer | None = None
        self.certificate = make_certificate(directory / "tls") if scenario.tls else None

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:  # also on an interrupt: what has been started must be stopped
            self._stack.close()
            raise
        return self

    def __exit__(self, *_error: object) -> None:
        self._stack.close()

    def _start(self) -> None:
        scenario, directory = self._scenario, self._directory
        settings: dict[str, object] = {
            "log__level": "warning",
            "admission__rate_per_s": scenario.rate_per_s,
            "admission__rate_floor_per_s": min(50.0, scenario.rate_per_s),
            # A rolling restart drains a node: its devices knock twice within a second.
            "admission__device_knock_burst": 1_000,
        }
        if scenario.nodes > 1 or scenario.fault in ("stream-outage", "slow-stream"):
            self.nats = self._stack.enter_context(synced_nats_server(directory / "nats"))
            monitoring = f"http://127.0.0.1:{self.nats.http_port}"
            settings |= {"nats__urls": self.nats.url, "nats__monitoring_url": monitoring}
        if scenario.nodes > 1:
            redis = self._stack.enter_context(RedisServer(directory / "redis"))
            settings["cluster__redis_url"] = redis.url
        if self.certificate is not None:
            files = self.certificate
            settings |= {"tls__cert_file": files.cert, "tls__key_file": files.key}
        settings |= {key.replace(".", "__"): value for key, value in scenario.gateway.items()}
        for number in range(scenario.nodes):
            gateway = GatewayServer(
                directory / f"node-{number}", jwks_file=self.issuer.jwks_file, **settings
            )
            self.gateways.append(self._stack.enter_context(gateway))
        self.settle()

    @property
    def urls(self) -> list[str]:
        """Where devices knock."""
        return [url_of(gateway, tls=self._scenario.tls) for gateway in self.gateways]

    @property
    def ca_file(self) -> Path | None:
        """What devices must trust; None for what the system trusts."""
        return self.certificate.cert if self.certificate is not None else None

    @property
    def nats_url(self) -> str:
        return self.nats.url if self.nats is not None else self.gateways[0].nats_url

    def settle(self) -> None:
        """Wait until every node that runs has heard of every other.

        Raises:
            TargetError: they do not find each other.
        """
        running = [gateway for gateway in self.gateways if gateway.running]
        if self._scenario.nodes == 1:
            return
        deadline = time.monotonic() + _SETTLE_TIMEOUT_S
        while time.monotonic() < deadline:
            fleets = [gateway.status()["admission"]["fleet"]["nodes"] for gateway in running]
            if all(nodes == len(running) for nodes in fleets):
                return
            time.sleep(0.2)
        raise TargetError("the nodes did not find each other")

    def sample(self, now: float) -> Sample | None:
        """The figures of all gateways that answer, together."""
        pages = []
        memory, cpu_s = 0, 0.0
        for gateway in self.gateways:
            try:
                pages.append(gateway.metrics_page())
                memory = max(memory, gateway.memory_bytes())
                cpu_s += gateway.cpu_s()
            except (OSError, ValueError, TargetError):
                continue  # it is down at the moment: scenarios do that
        if not pages:
            return None
        return sample_of(pages, now, memory, cpu_s)

    def check(self, acked: Mapping[str, int]) -> dict[str, Any] | None:
        """What the checker finds in the stream, by kind of damage."""
        return check(self.nats_url, acked)


def _number(pattern: re.Pattern[bytes], page: bytes) -> float:
    found = pattern.search(page)
    return float(found[1]) if found else 0.0


def url_of(gateway: GatewayServer, *, tls: bool = False) -> str:
    return f"{'wss' if tls else 'ws'}://127.0.0.1:{gateway.port}/v1/device"


def sample_of(pages: Sequence[bytes], now: float, memory: int, cpu_s: float) -> Sample:
    """One moment, from the metrics pages of the nodes."""

    def read(pattern: re.Pattern[bytes], convert: Callable[[bytes], Any], default: Any) -> Any:
        found = [pattern.search(page) for page in pages]
        return [convert(match[1]) if match else default for match in found]

    limits = [name for name in read(_LIMITED, bytes.decode, "ceiling") if name != "ceiling"]
    return Sample(
        at=now,
        rate_per_s=sum(read(_RATE, float, 0.0)),
        limited_by=limits[0] if limits else "ceiling",
        waiting=int(sum(read(_WAITING, float, 0.0))),
        memory=memory,
        cpu_s=cpu_s,
    )


def check(nats_url: str, acked: Mapping[str, int]) -> dict[str, Any]:
    """Run the checker in a process of its own.

    Raises:
        TargetError: it could not read the stream.
    """
    done = subprocess.run(
        [sys.executable, "-P", "-m", "loadtest.checker", nats_url],
        input=json.dumps(acked), capture_output=True, text=True, check=False,
        cwd=Path(__file__).parents[2], timeout=600,
    )  # fmt: skip
    if done.returncode:
        raise TargetError(f"the checker: {done.stderr.strip().splitlines()[-1:]}")
    findings: dict[str, Any] = json.loads(done.stdout)
    return findings
