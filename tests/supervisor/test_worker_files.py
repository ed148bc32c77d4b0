"""The files that workers change, written by the supervisor."""

import time

import pytest

from gateway.admission.revocation import Revocation
from gateway.node.cluster.revocations import REVOCATIONS_FILE, parse_facts, render_facts
from gateway.node.cluster.ticket_secrets import FLEET_SECRETS
from gateway.supervisor.worker_files import WorkerFiles

UNTIL = time.time() + 3_600


@pytest.fixture
def files(tmp_path):
    made = WorkerFiles(tmp_path, wall=time.time)
    made.load([])
    return made


def fact(device, at, **more):
    return Revocation(UNTIL, tenant="t", device=device, at=at, **more)


async def test_what_each_worker_knows_is_put_together_and_the_newer_fact_stays(files, tmp_path):
    lifted = fact("a", 3.0, lifted=True)
    assert await files.write(REVOCATIONS_FILE, render_facts([fact("a", 1.0)])) == ""
    assert await files.write(REVOCATIONS_FILE, render_facts([fact("b", 2.0), lifted])) == ""
    assert await files.write(REVOCATIONS_FILE, render_facts([fact("a", 1.0)])) == ""
    kept = parse_facts((tmp_path / REVOCATIONS_FILE).read_text(), "")
    assert {each.device: each.lifted for each in kept} == {"a": True, "b": False}


async def test_what_was_revoked_before_a_restart_is_not_forgotten(files, tmp_path):
    await files.write(REVOCATIONS_FILE, render_facts([fact("a", 1.0)]))
    again = WorkerFiles(tmp_path, wall=time.time)
    again.load([])
    await again.write(REVOCATIONS_FILE, render_facts([fact("b", 2.0)]))
    kept = parse_facts((tmp_path / REVOCATIONS_FILE).read_text(), "")
    assert {each.device for each in kept} == {"a", "b"}


async def test_a_worker_can_have_no_other_file_written(files, tmp_path):
    assert await files.write(FLEET_SECRETS, "s\n") == ""
    assert (tmp_path / FLEET_SECRETS).read_text() == "s\n"
    assert await files.write("../x", "s\n") == "../x is no file of a worker"
    assert not (tmp_path.parent / "x").exists()


async def test_a_disk_that_refuses_is_said(files, tmp_path):
    (tmp_path / FLEET_SECRETS).mkdir()
    assert "directory" in (await files.write(FLEET_SECRETS, "s\n")).lower()


def test_the_ticket_secret_is_made_before_any_worker_reads_it(files, tmp_path):
    assert (tmp_path / "ticket-secret").stat().st_mode & 0o777 == 0o600
