"""Questions to a worker, over its socket file."""

import contextlib

import pytest
from aiohttp import web

from gateway.supervisor.worker_client import WorkerClient, WorkerSilent


@contextlib.asynccontextmanager
async def worker(file, name):
    """A process of a worker, and the connections on which it was asked."""
    asked = []

    async def page(request):
        asked.append(request.transport)
        return web.json_response({"name": name, "asked": await request.text()})

    app = web.Application()
    app.router.add_route("*", "/page", page)
    runner = web.AppRunner(app, shutdown_timeout=0)
    await runner.setup()
    await web.UnixSite(runner, str(file)).start()
    try:
        yield asked
    finally:
        await runner.cleanup()


@pytest.fixture
async def client(tmp_path):
    client = WorkerClient(tmp_path / "1.sock")
    yield client
    await client.close()


async def test_questions_share_a_connection_and_the_next_process_gets_a_new_one(client, tmp_path):
    for name in ("first", "second"):
        async with worker(tmp_path / "1.sock", name) as asked:
            assert (await client.ask("/page")).document == {"name": name, "asked": ""}
            assert (await client.ask("/page", b"{}")).document == {"name": name, "asked": "{}"}
            assert len(set(asked)) == 1
        with pytest.raises(WorkerSilent):
            await client.ask("/page")
