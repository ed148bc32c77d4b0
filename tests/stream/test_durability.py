import pytest

from gateway.stream.durability import probe_durability
from support.servers import nats_server


@pytest.mark.parametrize(("sync", "durability"), [("always", "fsync"), ("2m", "stream")])
async def test_the_server_is_asked_whether_it_syncs(tmp_path, sync, durability):
    jetstream = {"store_dir": str(tmp_path / "js"), "sync_interval": sync}
    with nats_server(tmp_path, jetstream=jetstream) as server:
        assert await probe_durability(f"http://127.0.0.1:{server.http_port}") == durability


@pytest.mark.parametrize("url", [None, "http://127.0.0.1:1", "file:///etc/passwd"])
async def test_fsync_is_not_claimed_where_the_server_cannot_be_asked(url):
    assert await probe_durability(url) == "unverified"
