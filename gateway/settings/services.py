"""Settings of what a process talks to: operators, NATS, streams, Redis, logs."""

import re
from pathlib import Path
from typing import Annotated, Final, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, model_validator

from gateway.settings.kinds import Bytes, Count, HostName, Milliseconds, Port, Section, at_most

_OUR_SUBJECTS: Final = ("events", "deadletters", "commands", "presence", "state", "redrives")
_RULE_SUBJECT: Final = re.compile(r"[A-Za-z0-9_-]+(\.([A-Za-z0-9_-]+|\*))*(\.>)?")


class Ops(Section):
    """The listener of the operators."""

    host: str = "127.0.0.1"
    port: Port = 9090
    hosts: tuple[HostName, ...] = ()
    token_file: Path | None = None
    tls_cert_file: Path | None = None
    tls_key_file: Path | None = None

    @model_validator(mode="after")
    def _both_or_none(self) -> Self:
        if (self.tls_cert_file is None) != (self.tls_key_file is None):
            raise ValueError("tls_cert_file and tls_key_file go together")
        return self


def _check_address(name: str, url: str) -> None:
    """Refuse an address that can never be reached, instead of trying it for ever.

    Raises:
        ValueError: it has no host, or its port is none. The message does not repeat the URL, which
            may hold a password.
    """
    wrong_port = f"{name}: the port must be a number from 1 to 65535"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise ValueError(wrong_port) from None
    if port == 0:
        raise ValueError(wrong_port)
    if not parts.hostname:
        raise ValueError(f"{name}: a host is missing")


class Cluster(Section):
    """Several nodes as one, over Redis; a node of its own without `redis_url`."""

    redis_url: SecretStr | None = None
    key_prefix: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")] = "tidegate"
    heartbeat_ms: Annotated[int, Field(ge=50, le=60_000)] = 1_000
    node_timeout_ms: Milliseconds = 5_000
    lease_ms: Annotated[int, Field(ge=5, le=1_000)] = 100
    assumed_nodes: Annotated[int, Field(ge=1, le=1_000)] = 3

    @model_validator(mode="after")
    def _beats_in_time(self) -> Self:
        at_most("two heartbeat_ms", 2 * self.heartbeat_ms, "node_timeout_ms", self.node_timeout_ms)
        url = self.redis_url.get_secret_value() if self.redis_url is not None else "redis://"
        if not url.startswith(("redis://", "rediss://", "unix://")):
            raise ValueError("redis_url must begin with redis://, rediss:// or unix://")
        if self.redis_url is not None and not url.startswith("unix://"):
            _check_address("redis_url", url)
        return self


class Nats(Section):
    """The NATS server: an embedded one without `urls`, else the operator's."""

    urls: tuple[str, ...] = ()
    user: str | None = None
    password: SecretStr | None = None
    token: SecretStr | None = None
    credentials_file: Path | None = None
    tls_ca_file: Path | None = None
    tls_cert_file: Path | None = None
    tls_key_file: Path | None = None
    connect_timeout_ms: Milliseconds = 4_000
    reconnect_wait_ms: Milliseconds = 100
    reconnect_wait_max_ms: Milliseconds = 5_000
    monitoring_url: str | None = None
    data_dir: Path = Path(".tidegate")
    embedded_port: Port = 0
    embedded_rule_subjects: tuple[str, ...] = ("rules.>",)

    @model_validator(mode="after")
    def _one_way_to_sign_in(self) -> Self:
        if (self.user is None) != (self.password is None):
            raise ValueError("user and password go together")
        ways = [self.user, self.token, self.credentials_file]
        if sum(way is not None for way in ways) > 1:
            raise ValueError("user, token and credentials_file exclude each other")
        if (self.tls_cert_file is None) != (self.tls_key_file is None):
            raise ValueError("tls_cert_file and tls_key_file go together")
        return self

    @model_validator(mode="after")
    def _urls_are_nats_urls(self) -> Self:
        if not self.urls:
            for name in ("user", "token", "credentials_file", "tls_ca_file", "monitoring_url"):
                if getattr(self, name) is not None:
                    raise ValueError(f"{name} is for the server of urls, and urls is empty")
        for url in self.urls:
            if not url.startswith(("nats://", "tls://")):
                raise ValueError("urls must begin with nats:// or tls://")
            _check_address("urls", url)
        return self

    @model_validator(mode="after")
    def _rule_subjects_are_not_ours(self) -> Self:
        for subject in self.embedded_rule_subjects:
            if not _RULE_SUBJECT.fullmatch(subject) or subject.split(".")[0] in _OUR_SUBJECTS:
                raise ValueError(
                    f"embedded_rule_subjects: {subject!r} must be tokens [A-Za-z0-9_-], `*` or a"
                    f" last `>` joined by dots, and begin with none of {', '.join(_OUR_SUBJECTS)}"
                )
        return self


class Retention(Section):
    """What a stream keeps. 0 is no limit."""

    max_age_s: Annotated[int, Field(ge=0)] = 604_800
    max_bytes: Annotated[int, Field(ge=0)] = 0


class Stream(Section):
    """The streams: of events, dead letters, states, commands and presence."""

    durability: Literal["fsync", "stream"] = "fsync"
    replicas: Annotated[int, Field(ge=1, le=5)] = 1
    duplicate_window_s: Annotated[int, Field(ge=1, le=86_400)] = 120
    deny_delete: bool = True
    deny_purge: bool = True
    events: Retention = Retention()
    deadletters: Retention = Retention()
    state: Retention = Retention(max_age_s=0)
    commands: Retention = Retention(max_age_s=2_592_000)
    presence: Retention = Retention(max_age_s=2_592_000)

    @model_validator(mode="after")
    def _window_within_age(self) -> Self:
        for name in ("events", "deadletters", "state", "commands", "presence"):
            age_s = getattr(self, name).max_age_s
            if 0 < age_s < self.duplicate_window_s:
                raise ValueError(
                    f"{name}.max_age_s is {age_s}, shorter than duplicate_window_s, which is"
                    f" {self.duplicate_window_s}"
                )
        return self


class Publish(Section):
    """Lanes, batches and repeats."""

    # A stream takes 50 open atomic batches, and a lane may have two.
    lanes: Annotated[int, Field(ge=1, le=24)] = 1
    batch_messages: Annotated[int, Field(ge=1, le=10_000)] = 4_000
    batch_bytes: Annotated[int, Field(ge=1024, le=16_777_216)] = 2_097_152
    linger_ms: Annotated[int, Field(ge=0, le=1_000)] = 0
    pending_messages: Count = 100_000
    pending_bytes: Bytes = 67_108_864
    ack_timeout_ms: Milliseconds = 5_000
    retry_ms: Milliseconds = 100
    retry_max_ms: Milliseconds = 2_000
    hold_after_ms: Milliseconds = 2_000


class Presence(Section):
    """Facts of when devices come and go."""

    enabled: bool = True
    linger_ms: Annotated[int, Field(ge=0, le=2_000)] = 500
    facts_per_s: Annotated[float, Field(ge=10, le=100_000)] = 3_000.0
    pending_facts: Count = 200_000


class Commands(Section):
    """The queue of commands."""

    in_flight_max: Annotated[int, Field(ge=1, le=100)] = 1
    deliveries_per_s: Annotated[float, Field(gt=0)] = 500.0
    result_wait_s: Annotated[float, Field(ge=0)] = 3600.0
    entries_max: Count = 100_000


class Drain(Section):
    """Stopping."""

    rate_per_s: Annotated[float, Field(gt=0, le=100_000)] = 200.0
    linger_ms: Annotated[int, Field(ge=0, le=600_000)] = 2_000
    flush_timeout_ms: Milliseconds = 30_000


class Log(Section):
    """Logs on standard error."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "json", "console"] = "auto"


class Events(Section):
    """What becomes of events: schemas at the door."""

    file: Path | None = None


class Trace(Section):
    """Traces: which messages are sampled, and the collector of their spans."""

    sample_ratio: Annotated[float, Field(ge=0, le=1)] = 0.0
    sampled_per_s: Annotated[float, Field(ge=1, le=100_000)] = 1_000.0
    endpoint: str | None = None
    headers_file: Path | None = None
    service_name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")] = "tidegate"
    queue_spans: Annotated[int, Field(ge=512, le=1_000_000)] = 8_192
    timeout_ms: Milliseconds = 5_000

    @model_validator(mode="after")
    def _endpoint_is_http(self) -> Self:
        if self.endpoint is None:
            if self.headers_file is not None:
                raise ValueError("headers_file is for the collector of endpoint, which is not set")
            return self
        if not self.endpoint.startswith(("http://", "https://")):
            raise ValueError("endpoint must begin with http:// or https://")
        _check_address("endpoint", self.endpoint)
        parts = urlsplit(self.endpoint)
        if "@" in parts.netloc or parts.query or parts.fragment:
            raise ValueError("endpoint has no user, query or fragment; secrets go to headers_file")
        return self
