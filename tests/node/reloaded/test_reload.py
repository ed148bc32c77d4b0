"""SIGHUP reads everything again that may change, and a broken certificate stays out."""

import pytest
from structlog.testing import capture_logs

from gateway.edge.errors import TlsError
from gateway.node.reloaded.certificate import PlainTcp, transport_of
from gateway.node.reloaded.reload import Reload
from gateway.node.reloaded.schemas_in_force import NoSchemas, schemas_of
from gateway.process import Background
from gateway.settings import Tls
from gateway.telemetry.metrics import Metrics
from loadtest.servers.certificates import make_certificate
from support.waiting import eventually


class Keys:
    def __init__(self):
        self.refreshed = 0

    async def refresh(self):
        self.refreshed += 1


class Counting:
    def __init__(self):
        self.reloads = 0

    def reload(self):
        self.reloads += 1


async def test_everything_is_read_again():
    transport, schemas, access, keys = Counting(), Counting(), Counting(), Keys()
    background = Background([], on_failure=pytest.fail)
    Reload((transport, schemas, access), keys=keys, background=background).run()
    await eventually(lambda: keys.refreshed == 1)
    assert (transport.reloads, schemas.reloads, access.reloads) == (1, 1, 1)
    await background.stop()


def test_without_a_certificate_devices_come_over_plain_tcp():
    transport = transport_of(Tls())
    assert isinstance(transport, PlainTcp)
    assert transport.context() is None
    transport.reload()
    transport.register_gauges(Metrics(), "tidegate_certificate_expires_seconds")


def test_a_certificate_that_breaks_later_leaves_the_old_one_in_force(tmp_path):
    files = make_certificate(tmp_path)
    transport = transport_of(Tls(cert_file=files.cert, key_file=files.key))
    metrics = Metrics()
    transport.register_gauges(metrics, "tidegate_certificate_expires_seconds")
    assert metrics.value("tidegate_certificate_expires_seconds") > 0
    before = transport.context()
    assert before is not None
    files.key.write_text("broken")
    with capture_logs() as logs:
        transport.reload()
    assert [line["event"] for line in logs] == ["certificate_reload_failed"]
    assert transport.context() is before
    renewed = make_certificate(tmp_path)
    transport.reload()
    assert transport.context() is not before
    assert renewed.serial != files.serial


def test_a_certificate_that_cannot_be_used_keeps_the_gateway_from_starting(tmp_path):
    (tmp_path / "cert").write_text("broken")
    with pytest.raises(TlsError, match="certificate"):
        transport_of(Tls(cert_file=tmp_path / "cert", key_file=tmp_path / "cert"))


def test_without_an_events_file_every_message_fits():
    schemas = schemas_of(None, pytest.fail)
    assert isinstance(schemas, NoSchemas)
    assert (schemas.rejecting, schemas.marking) == (None, None)
    schemas.reload()
