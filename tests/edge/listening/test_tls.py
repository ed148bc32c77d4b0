"""The certificate in force: its dates, its key, its reload."""

import time

import pytest

from gateway.edge.errors import TlsError
from gateway.edge.listening.tls import Certificate
from loadtest.servers.certificates import make_certificate
from support.gateways import Way, running_gateway


def certificate(files, clock=time.time):
    return Certificate(files.cert, files.key, wall_clock=clock)


def test_a_key_with_a_passphrase_is_an_error_without_a_prompt(tmp_path):
    """OpenSSL would ask on the terminal and wait, at SIGHUP with the whole event loop."""
    files = make_certificate(tmp_path, passphrase=b"secret")
    with pytest.raises(TlsError, match=r"key .*key\.pem has a passphrase"):
        certificate(files)


def test_a_reload_to_a_key_with_a_passphrase_leaves_the_old_in_force(tmp_path):
    in_force = certificate(make_certificate(tmp_path))
    before = in_force.context
    make_certificate(tmp_path, passphrase=b"secret")
    with pytest.raises(TlsError, match="passphrase"):
        in_force.reload()
    assert in_force.context is before


@pytest.mark.parametrize(
    ("times", "trouble"),
    [
        ({"begins_s": -7_200, "ends_s": -3_600}, "expired on 20"),
        ({"begins_s": 3_600, "ends_s": 7_200}, "is not valid before 20"),
        ({}, ""),
    ],
)
def test_a_certificate_that_is_expired_or_not_valid_yet_is_reported(tmp_path, times, trouble):
    found = certificate(make_certificate(tmp_path, **times))
    assert found.trouble.startswith(trouble)
    assert bool(found.trouble) == bool(trouble)
    assert found.expires_in_s == pytest.approx(times.get("ends_s", 86_400), abs=120)


def test_a_reload_refuses_a_certificate_that_is_expired_or_not_valid_yet(tmp_path):
    in_force = certificate(make_certificate(tmp_path))
    before = in_force.context
    make_certificate(tmp_path, begins_s=-7_200, ends_s=-3_600)
    with pytest.raises(TlsError, match=r"cert\.pem expired on 20"):
        in_force.reload()
    assert in_force.context is before
    make_certificate(tmp_path)
    in_force.reload()
    assert in_force.context is not before


def test_a_certificate_that_expires_in_force_is_reported(tmp_path):
    now = [time.time()]
    in_force = certificate(make_certificate(tmp_path), clock=lambda: now[0])
    assert not in_force.trouble
    now[0] += 90_000
    assert in_force.trouble.startswith("expired on")
    assert in_force.expires_in_s < 0


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        ("cert", r"certificate .*cert\.pem holds none in PEM form$"),
        ("key", r"cert\.pem, key .*key\.pem"),
    ],
)
def test_a_file_that_is_no_pem_is_named(tmp_path, broken, said):
    files = make_certificate(tmp_path)
    getattr(files, broken).write_text("broken")
    with pytest.raises(TlsError, match=said):
        certificate(files)


def test_a_certificate_that_is_missing_is_named(tmp_path):
    files = make_certificate(tmp_path)
    files.cert.unlink()
    with pytest.raises(TlsError, match=r"certificate .*cert\.pem: No such file or directory$"):
        certificate(files)


async def test_the_metric_of_a_gateway(tmp_path):
    async with running_gateway(tmp_path, way=Way(tls=True)) as gateway:
        left_s = gateway.metrics.value("tidegate_certificate_expires_seconds")
        assert left_s == pytest.approx(86_400, abs=300)
