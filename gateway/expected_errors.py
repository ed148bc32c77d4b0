"""The errors that keep a gateway from starting or running, with a message for its operator."""

from typing import Final

import nats.errors

from gateway.admission.errors import AdmissionError
from gateway.cluster.errors import ClusterError
from gateway.edge.errors import EdgeError
from gateway.errors import GatewayError
from gateway.events.errors import EventsError
from gateway.ops.errors import OpsError
from gateway.stream.errors import StreamError
from gateway.telemetry.errors import TelemetryError

EXPECTED: Final = (
    AdmissionError,
    ClusterError,
    EdgeError,
    EventsError,
    GatewayError,
    OpsError,
    StreamError,
    TelemetryError,
    nats.errors.Error,
    OSError,
)
