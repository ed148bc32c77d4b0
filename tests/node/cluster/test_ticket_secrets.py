"""The ticket secrets of a node: kept on disk, and in force as soon as the fleet changes them."""

import pytest
from structlog.testing import capture_logs

from gateway.admission.keyring import Keyring
from gateway.errors import DataDirectoryError
from gateway.node.cluster.ticket_secrets import KeptSecrets, TicketRotation


class Office:
    secrets = None

    def rotate(self, secrets):
        self.secrets = list(secrets)


def test_a_node_without_configured_secrets_makes_one_and_keeps_it(tmp_path):
    first, again = (KeptSecrets(tmp_path).load([]) for _ in range(2))
    assert first.secrets == again.secrets
    assert (tmp_path / "ticket-secret").stat().st_mode & 0o077 == 0


def test_a_data_directory_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataDirectoryError, match=r"^data directory .*/file: not a directory$"):
        KeptSecrets(tmp_path / "file").load([])


def test_configured_secrets_leave_no_file(tmp_path):
    keyring = KeptSecrets(tmp_path).load([b"c" * 32])
    assert keyring.configured
    assert not (tmp_path / "ticket-secret").exists()
    KeptSecrets(tmp_path).keep(keyring)
    assert not (tmp_path / "fleet-secrets").exists()


def test_a_rotation_is_in_force_at_once_and_after_a_restart(tmp_path):
    kept, office = KeptSecrets(tmp_path), Office()
    kept.load([])
    keyring = Keyring([], [b"own", b"fleet"])
    TicketRotation(keyring, office, kept).rotate()
    assert office.secrets == list(keyring.secrets)
    assert KeptSecrets(tmp_path).load([]).issuing == keyring.issuing


def test_a_disk_that_refuses_is_said_and_tickets_rotate_all_the_same(tmp_path):
    (tmp_path / "fleet-secrets").mkdir()
    office = Office()
    with capture_logs() as logs:
        TicketRotation(Keyring([], [b"own"]), office, KeptSecrets(tmp_path)).rotate()
    assert [line["event"] for line in logs] == ["ticket_secrets_not_kept"]
    assert office.secrets == [b"own"]
