"""Settings of what devices meet: listener, limits, sessions, admission, credentials."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, PlainValidator, SecretStr, model_validator

from gateway.admission.ticket import SECRET_BYTES_MIN
from gateway.settings.kinds import Bytes, Count, Milliseconds, Port, Section, at_most

Algorithm = Literal["HS256", "ES256", "EdDSA", "RS256"]
Level = Annotated[float, Field(gt=0)]


def _workers(value: object) -> int | str:
    """One message for both forms; a union of types would have one for each."""
    try:
        if value == "auto":
            return "auto"
        if isinstance(value, (int, str)) and not isinstance(value, bool) and int(value) >= 1:
            return int(value)
    except ValueError:
        pass  # the text is no number
    raise ValueError('must be a whole number from 1 on, or "auto"')


Workers = Annotated[int | Literal["auto"], PlainValidator(_workers)]
"""Processes on one port; `auto` is one a core."""


class Server(Section):
    """The listener of the devices."""

    host: str = "127.0.0.1"
    port: Port = 8080
    backlog: Count = 4096
    accept_budget: Count = 16
    accept_slice_us: Count = 300
    connections_max: Count = 18_000
    anonymous_max: Count = 4_096
    workers: Workers = 1


class Tls(Section):
    """TLS on the device listener; off without a certificate."""

    cert_file: Path | None = None
    key_file: Path | None = None
    handshake_timeout_ms: Milliseconds = 10_000

    @model_validator(mode="after")
    def _both(self) -> Self:
        if (self.cert_file is None) != (self.key_file is None):
            raise ValueError("cert_file and key_file go together")
        return self


class Limits(Section):
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
        at_most("message_bytes", self.message_bytes, "frame_bytes", self.frame_bytes)
        return self


class Compression(Section):
    """permessage-deflate (RFC 7692)."""

    enabled: bool = False
    window_bits: Annotated[int, Field(ge=9, le=15)] = 11
    memory_level: Annotated[int, Field(ge=1, le=9)] = 4


class Keepalive(Section):
    """Pings to devices."""

    interval_ms: Milliseconds = 30_000
    timeout_ms: Milliseconds = 20_000

    @model_validator(mode="after")
    def _answered_before_next(self) -> Self:
        at_most("timeout_ms", self.timeout_ms, "interval_ms", self.interval_ms)
        return self


class Session(Section):
    """Credit and first retry."""

    credit_initial: Count = 32
    credit_max: Count = 256
    credit_greedy: Count = 1
    credit_budget_bytes: Bytes = 134_217_728
    release_per_s: Annotated[float, Field(gt=0, le=1_000_000)] = 500.0
    resume_lookups: Annotated[int, Field(ge=1, le=1_000)] = 16
    # One answer of JetStream has at most 1024 messages, one of which is no device's.
    state_lookups: Annotated[int, Field(ge=1, le=1_000)] = 128
    state_wait_ms: Annotated[int, Field(ge=0, le=60_000)] = 500
    state_cache_bytes: Annotated[int, Field(ge=65_536)] = 33_554_432
    first_retry_min_ms: Milliseconds = 2_000
    refusals_per_s: Count = 1_000
    command_chain_ms: Annotated[int, Field(ge=0, le=60_000)] = 1_000

    @model_validator(mode="after")
    def _credit_grows(self) -> Self:
        at_most("credit_initial", self.credit_initial, "credit_max", self.credit_max)
        at_most("credit_greedy", self.credit_greedy, "credit_max", self.credit_max)
        return self


class Mark(Section):
    """A signal's marks: good below `low`, bad above `high`."""

    low: Level
    high: Level

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.low >= self.high:
            raise ValueError(f"low is {self.low}, not below high, which is {self.high}")
        return self


class Admission(Section):
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
        at_most("rate_floor_per_s", self.rate_floor_per_s, "rate_per_s", self.rate_per_s)
        for secret in self.ticket_secrets:
            if len(secret.get_secret_value().encode()) < SECRET_BYTES_MIN:
                raise ValueError(f"ticket_secrets: one has fewer than {SECRET_BYTES_MIN} bytes")
        return self


class Credentials(Section):
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
