"""Every setting of the gateway: one validated model from file, environment and command line.

Rising priority: defaults, TOML file, `TIDEGATE_<SECTION>__<KEY>` environment, command line. What is
unknown, of the wrong kind or contradicts something else is an error that names the key. A secret
`x` can be read from the file that `x_file` names.

Names end with their unit: `_ms` milliseconds, `_s` seconds, `_bytes`; counts have none.
`config/gateway.toml` explains each key; a test keeps the two in step.
"""

import difflib
import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, model_validator

from gateway.admission.ticket import SECRET_BYTES_MIN

ENVIRONMENT_PREFIX: Final = "TIDEGATE_"
NOT_SETTINGS: Final = frozenset({"TIDEGATE_SINK_DATABASE_URL", "TIDEGATE_TEST_POSTGRES_URL"})
"""Variables with that prefix that other commands and the tests read."""

Count = Annotated[int, Field(ge=1)]
Port = Annotated[int, Field(ge=0, le=65535)]
Bytes = Annotated[int, Field(ge=1)]
Milliseconds = Annotated[int, Field(ge=1, le=86_400_000)]
HostName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,252})$")]


class SettingsError(ValueError):
    """The settings cannot be used. The message has a line for each offence, naming its key."""


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class Server(_Section):
    """The listener of the devices."""

    host: str = "127.0.0.1"
    port: Port = 8080
    backlog: Count = 4096
    accept_budget: Count = 16
    accept_slice_us: Count = 300
    connections_max: Count = 18_000
    anonymous_max: Count = 4_096


class Tls(_Section):
    """TLS on the device listener; off without a certificate."""

    cert_file: Path | None = None
    key_file: Path | None = None
    handshake_timeout_ms: Milliseconds = 10_000

    @model_validator(mode="after")
    def _both(self) -> Self:
        if (self.cert_file is None) != (self.key_file is None):
            raise ValueError("cert_file and key_file go together")
        return self


class Ops(_Section):
    """The listener of the operators."""

    host: str = "127.0.0.1"
    port: Port = 9090
    hosts: tuple[HostName, ...] = ()


class Limits(_Section):
    """Bounds on what one connection may send and hold."""

    head_bytes: Annotated[int, Field(ge=1024, le=65_536)] = 8_192
    head_timeout_ms: Milliseconds = 5_000
    hello_timeout_ms: Milliseconds = 10_000
    message_bytes: Annotated[int, Field(ge=256, le=4_194_304)] = 65_536
    frame_bytes: Annotated[int, Field(ge=1024, le=16_777_216)] = 262_144
    messages_per_frame: Count = 1_000
    json_depth: Annotated[int, Field(ge=1, le=256)] = 32
    fragments: Count = 64
    side_frames_per_s: Annotated[float, Field(ge=1, le=1_000_000)] = 200.0
    side_frames_burst: Count = 200
    side_bytes_per_s: Annotated[float, Field(ge=1_024)] = 262_144.0
    side_bytes_burst: Bytes = 524_288
    side_patience_ms: Milliseconds = 30_000
    write_buffer_bytes: Bytes = 262_144
    slow_reader_timeout_ms: Milliseconds = 10_000
    close_timeout_ms: Milliseconds = 5_000

    @model_validator(mode="after")
    def _frame_holds_message(self) -> Self:
        if self.frame_bytes < self.message_bytes:
            raise ValueError("frame_bytes is smaller than message_bytes")
        return self


class Compression(_Section):
    """permessage-deflate (RFC 7692)."""

    enabled: bool = False
    window_bits: Annotated[int, Field(ge=9, le=15)] = 11
    memory_level: Annotated[int, Field(ge=1, le=9)] = 4


class Keepalive(_Section):
    """Pings to devices."""

    interval_ms: Milliseconds = 30_000
    timeout_ms: Milliseconds = 20_000

    @model_validator(mode="after")
    def _answered_before_next(self) -> Self:
        if self.timeout_ms > self.interval_ms:
            raise ValueError("timeout_ms is longer than interval_ms")
        return self


class Session(_Section):
    """Credit and first retry."""

    credit_initial: Count = 32
    credit_max: Count = 256
    credit_greedy: Count = 1
    credit_budget_bytes: Bytes = 134_217_728
    release_per_s: Annotated[float, Field(gt=0, le=1_000_000)] = 500.0
    resume_lookups: Annotated[int, Field(ge=1, le=1_000)] = 16
    first_retry_min_ms: Milliseconds = 2_000
    refusals_per_s: Count = 1_000

    @model_validator(mode="after")
    def _credit_grows(self) -> Self:
        if self.credit_initial > self.credit_max:
            raise ValueError("credit_initial is larger than credit_max")
        if self.credit_greedy > self.credit_max:
            raise ValueError("credit_greedy is larger than credit_max")
        return self


Low = Annotated[float, Field(gt=0)]


class Mark(_Section):
    """A signal's marks: good below `low`, bad above `high`."""

    low: Low
    high: Low

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.low >= self.high:
            raise ValueError("low is not below high")
        return self


class Admission(_Section):
    """How many devices come in a second, and what the others are told."""

    rate_per_s: Annotated[float, Field(gt=0, le=100_000)] = 500.0
    rate_floor_per_s: Annotated[float, Field(gt=0, le=100_000)] = 50.0
    burst: Count = 100
    horizon_ms: Milliseconds = 900_000
    park_ms: Annotated[int, Field(ge=0, le=10_000)] = 1_000
    patience_ms: Annotated[int, Field(ge=0, le=10_000)] = 5_000
    window_ms: Milliseconds = 10_000
    late_ms: Annotated[int, Field(ge=0, le=86_400_000)] = 300_000
    lot_places: Count = 4_096
    priority_share: Annotated[float, Field(gt=0, le=1)] = 0.2
    resume_cost: Annotated[float, Field(gt=0, le=1)] = 0.5
    resume_within_ms: Milliseconds = 600_000
    overload_retry_ms: Milliseconds = 10_000
    verification_share: Annotated[float, Field(gt=0, le=1)] = 0.5
    device_knocks_per_s: Annotated[float, Field(gt=0)] = 1.0
    device_knock_burst: Count = 20
    address_knocks_per_s: Annotated[float, Field(gt=0)] = 5_000.0
    address_knock_burst: Count = 20_000
    ticket_secrets: tuple[SecretStr, ...] = ()
    puback_p99_ms: Mark = Mark(low=500, high=2_000)
    publish_backlog: Mark = Mark(low=0.25, high=0.6)
    loop_lag_ms: Mark = Mark(low=100, high=300)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.rate_floor_per_s > self.rate_per_s:
            raise ValueError("rate_floor_per_s is above rate_per_s")
        for secret in self.ticket_secrets:
            if len(secret.get_secret_value().encode()) < SECRET_BYTES_MIN:
                raise ValueError(f"ticket_secrets: one has fewer than {SECRET_BYTES_MIN} bytes")
        return self


class Cluster(_Section):
    """Several nodes as one, over Redis; a node of its own without `redis_url`."""

    redis_url: SecretStr | None = None
    key_prefix: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")] = "tidegate"
    heartbeat_ms: Annotated[int, Field(ge=50, le=60_000)] = 1_000
    node_timeout_ms: Milliseconds = 5_000
    lease_ms: Annotated[int, Field(ge=5, le=1_000)] = 100
    assumed_nodes: Annotated[int, Field(ge=1, le=1_000)] = 3

    @model_validator(mode="after")
    def _beats_in_time(self) -> Self:
        if self.node_timeout_ms < 2 * self.heartbeat_ms:
            raise ValueError("node_timeout_ms is shorter than two heartbeats")
        url = self.redis_url.get_secret_value() if self.redis_url is not None else "redis://"
        if not url.startswith(("redis://", "rediss://", "unix://")):
            raise ValueError("redis_url must begin with redis://, rediss:// or unix://")
        return self


Algorithm = Literal["HS256", "ES256", "EdDSA", "RS256"]


class Credentials(_Section):
    """Which JWTs are believed."""

    jwks_file: Path | None = None
    jwks_url: str | None = None
    jwks_refresh_ms: Milliseconds = 300_000
    algorithms: tuple[Algorithm, ...] = ("ES256", "EdDSA", "RS256", "HS256")
    audience: str | None = None
    issuer: str | None = None
    leeway_ms: Annotated[int, Field(ge=0, le=600_000)] = 10_000
    cache_entries: Count = 50_000

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if self.jwks_file is not None and self.jwks_url is not None:
            raise ValueError("jwks_file and jwks_url exclude each other")
        if not self.algorithms:
            raise ValueError("algorithms is empty: no credential could be believed")
        return self


_OUR_SUBJECTS: Final = ("events", "deadletters", "commands", "presence", "state", "redrives")
_RULE_SUBJECT: Final = re.compile(r"[A-Za-z0-9_-]+(\.([A-Za-z0-9_-]+|\*))*(\.>)?")


class Nats(_Section):
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
    def _consistent(self) -> Self:  # noqa: C901  # over 10 until its room has landed (issue 14)
        if (self.user is None) != (self.password is None):
            raise ValueError("user and password go together")
        ways = [self.user, self.token, self.credentials_file]
        if sum(way is not None for way in ways) > 1:
            raise ValueError("user, token and credentials_file exclude each other")
        if (self.tls_cert_file is None) != (self.tls_key_file is None):
            raise ValueError("tls_cert_file and tls_key_file go together")
        if not self.urls:
            for name in ("user", "token", "credentials_file", "tls_ca_file", "monitoring_url"):
                if getattr(self, name) is not None:
                    raise ValueError(f"{name} is for the server of urls, and urls is empty")
        for url in self.urls:
            if not url.startswith(("nats://", "tls://")):
                raise ValueError("urls must begin with nats:// or tls://")
        for subject in self.embedded_rule_subjects:
            if not _RULE_SUBJECT.fullmatch(subject) or subject.split(".")[0] in _OUR_SUBJECTS:
                raise ValueError(
                    f"embedded_rule_subjects: {subject!r} must be tokens [A-Za-z0-9_-], `*` or a"
                    f" last `>` joined by dots, and begin with none of {', '.join(_OUR_SUBJECTS)}"
                )
        return self


class Retention(_Section):
    """What a stream keeps. 0 is no limit."""

    max_age_s: Annotated[int, Field(ge=0)] = 604_800
    max_bytes: Annotated[int, Field(ge=0)] = 0


class Stream(_Section):
    """The streams EVENTS and DEADLETTERS."""

    durability: Literal["fsync", "stream"] = "fsync"
    replicas: Annotated[int, Field(ge=1, le=5)] = 1
    duplicate_window_s: Annotated[int, Field(ge=1, le=86_400)] = 120
    deny_delete: bool = True
    deny_purge: bool = True
    events: Retention = Retention()
    deadletters: Retention = Retention()

    @model_validator(mode="after")
    def _window_within_age(self) -> Self:
        for name in ("events", "deadletters"):
            age_s = getattr(self, name).max_age_s
            if 0 < age_s < self.duplicate_window_s:
                raise ValueError(f"{name}.max_age_s is shorter than duplicate_window_s")
        return self


class Publish(_Section):
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


class Drain(_Section):
    """Stopping."""

    rate_per_s: Annotated[float, Field(gt=0, le=100_000)] = 200.0
    linger_ms: Annotated[int, Field(ge=0, le=600_000)] = 2_000
    flush_timeout_ms: Milliseconds = 30_000


class Log(_Section):
    """Logs on standard error."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "json", "console"] = "auto"


class Events(_Section):
    """What becomes of events: schemas at the door."""

    file: Path | None = None


class Trace(_Section):
    """`traceparent` on stored messages."""

    sample_ratio: Annotated[float, Field(ge=0, le=1)] = 0.0


class Settings(_Section):
    """All of it."""

    server: Server = Server()
    tls: Tls = Tls()
    ops: Ops = Ops()
    limits: Limits = Limits()
    compression: Compression = Compression()
    keepalive: Keepalive = Keepalive()
    session: Session = Session()
    credentials: Credentials = Credentials()
    admission: Admission = Admission()
    cluster: Cluster = Cluster()
    nats: Nats = Nats()
    stream: Stream = Stream()
    publish: Publish = Publish()
    drain: Drain = Drain()
    log: Log = Log()
    trace: Trace = Trace()
    events: Events = Events()

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.stream.replicas > 1 and not self.nats.urls:
            raise ValueError(
                f"stream.replicas is {self.stream.replicas}, but without nats.urls there is one"
                " nats-server, the embedded one: set nats.urls, or stream.replicas = 1"
            )
        if self.limits.frame_bytes > self.publish.pending_bytes:
            raise ValueError("limits.frame_bytes is larger than publish.pending_bytes")
        if self.limits.message_bytes > self.publish.batch_bytes:
            raise ValueError("limits.message_bytes is larger than publish.batch_bytes")
        if self.session.credit_max > self.publish.pending_messages:
            raise ValueError("session.credit_max is larger than publish.pending_messages")
        return self


_SECRETS: Final = {
    ("nats", "password"),
    ("nats", "token"),
    ("cluster", "redis_url"),
    ("admission", "ticket_secrets"),
}
_SECRET_LISTS: Final = {"ticket_secrets"}
"""Read from a file with one secret a line, newest first."""

Tree = dict[str, Any]


def secrets_of(settings: Settings) -> list[str]:
    """Every secret that the settings hold, and the passwords within URLs."""
    nats, cluster = settings.nats, settings.cluster
    hidden = [nats.password, nats.token, *settings.admission.ticket_secrets]
    found = [secret.get_secret_value() for secret in hidden if secret is not None]
    urls = [*nats.urls, settings.credentials.jwks_url or ""]
    if cluster.redis_url is not None:
        urls.append(cluster.redis_url.get_secret_value())
    for url in urls:
        user_info = urlsplit(url).netloc.rpartition("@")[0]
        found += [user_info, user_info.partition(":")[2]]
    return [secret for secret in found if secret]


def load_settings(
    file: Path | None = None,
    *,
    environment: Mapping[str, str] | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> Settings:
    """Read and validate the settings.

    Args:
        file: TOML file.
        environment: variables; those that begin with TIDEGATE_ must all be settings.
        overrides: values of the command line by dotted key, e.g. `{"server.port": 0}`.

    Raises:
        SettingsError: naming every offending key.
    """
    tree: Tree = {}
    if file is not None:
        try:
            tree = tomllib.loads(file.read_text())
        except OSError as exc:
            raise SettingsError(f"{file}: {exc.strerror}") from exc
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as exc:
            raise SettingsError(f"{file}: {exc}") from exc
    environment = os.environ if environment is None else environment
    for name, value in sorted(environment.items()):
        if name.startswith(ENVIRONMENT_PREFIX) and name not in NOT_SETTINGS:
            path = name.removeprefix(ENVIRONMENT_PREFIX).lower().split("__")
            _put(tree, path, _from_text(path, value), name)
    for key, value in (overrides or {}).items():
        if value is not None:
            _put(tree, key.split("."), value, key)
    _read_secret_files(tree)
    try:
        return Settings.model_validate(tree)
    except ValidationError as exc:
        raise SettingsError("\n".join(_explain(error) for error in exc.errors())) from None


def _put(tree: Tree, path: list[str], value: Any, name: str) -> None:
    for section in path[:-1]:
        tree = tree.setdefault(section, {})
        if not isinstance(tree, dict):
            raise SettingsError(f"{name}: {section} is not a section")
    tree[path[-1]] = value


def _from_text(path: list[str], text: str) -> Any:
    """A list is written with commas; everything else pydantic reads from its text."""
    model: Any = Settings
    for name in path:
        field = getattr(model, "model_fields", {}).get(name)
        model = field.annotation if field is not None else None
    if getattr(model, "__origin__", None) is tuple:
        return [part.strip() for part in text.split(",") if part.strip()]
    return text


def _read_secret_files(tree: Tree) -> None:
    for section, name in sorted(_SECRETS):
        values = tree.get(section)
        if not isinstance(values, dict) or f"{name}_file" not in values:
            continue
        path = values.pop(f"{name}_file")
        if name in values:
            raise SettingsError(f"{section}.{name} and {section}.{name}_file exclude each other")
        try:
            text = Path(path).read_text().strip()
            values[name] = text.split() if name in _SECRET_LISTS else text
        except (OSError, TypeError, UnicodeDecodeError) as exc:
            raise SettingsError(f"{section}.{name}_file: {exc}") from exc


def _explain(error: Any) -> str:
    key = ".".join(str(part) for part in error["loc"])
    if error["type"] != "extra_forbidden":
        message = error["msg"].removeprefix("Value error, ")
        return f"{key}: {message}" if key else message
    *section, name = error["loc"]
    model: Any = Settings
    for part in section:
        model = model.model_fields[part].annotation
    close = difflib.get_close_matches(str(name), model.model_fields, n=1, cutoff=0.5)
    hint = f"; did you mean {'.'.join([*map(str, section), close[0]])}?" if close else ""
    return f"{key}: unknown setting{hint}"
