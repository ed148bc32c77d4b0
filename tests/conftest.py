import asyncio
import re

import pytest

try:
    import uvloop

    from support.gateways import WAYS, running_gateway
except ModuleNotFoundError:  # the client alone is installed: `make client-matrix`
    uvloop, WAYS = None, ()

_TOKEN = re.compile(r"eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}")
"""A JWT: what no log line may hold."""

try:
    from hypothesis import HealthCheck, settings
except ModuleNotFoundError:  # as above
    pass
else:
    # No test fails for being slow: other programs run beside it. `make fuzz` tries many more.
    patient = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
    settings.register_profile("suite", max_examples=50, **patient)
    settings.register_profile("fuzz", max_examples=10_000, **patient)  # of `make fuzz`
    # Of `make coverage`, which must find the same at each run, and quickly.
    settings.register_profile(
        "coverage", max_examples=15, derandomize=True, database=None, **patient
    )
    settings.load_profile("suite")


def pytest_addoption(parser):
    parser.addoption(
        "--covered-elsewhere",
        default="",
        help="paths, apart by spaces, of which `make coverage` runs what is quick",
    )


def pytest_collection_modifyitems(config, items):
    """Leave out what `make coverage` runs in the same way: neither figures nor generated input."""
    paths = config.getoption("--covered-elsewhere").split()
    folders = [config.rootpath / path for path in paths]
    left_out = [
        item
        for item in items
        if any(item.path.is_relative_to(folder) for folder in folders)
        and not any(item.get_closest_marker(name) for name in ("figures", "long"))
        and not getattr(item.obj, "is_hypothesis_test", False)
    ]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in set(left_out)]


def pytest_asyncio_loop_factories(config, item):
    """Every async test runs on the loop of production; the client alone on Python's own."""
    factory = uvloop.new_event_loop if uvloop is not None else asyncio.new_event_loop
    return {"loop": factory}


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    """No test passes if something logged or printed a credential while it ran."""
    report = (yield).get_result()
    for name, text in report.sections:
        found = _TOKEN.search(text)
        if found is not None and report.passed:
            report.outcome = "failed"
            report.longrepr = f"{name} holds a credential: ...{text[: found.end()][-200:]}"


@pytest.fixture
async def gateway(tmp_path):
    async with running_gateway(tmp_path) as running:
        yield running


def _ways():
    """All four; TLS with a header, whose halves the others have, is of the long form."""
    for way in WAYS:
        marks = [pytest.mark.long] if way.tls and not way.subprotocol else []
        yield pytest.param(way, marks=marks, id=str(way))


@pytest.fixture(params=_ways())
def way(request):
    """How devices come: plain TCP or TLS, with their credential in a header or a subprotocol."""
    return request.param


@pytest.fixture
async def ways_gateway(tmp_path, way):
    """A gateway in each of the ways."""
    async with running_gateway(tmp_path, way=way) as running:
        yield running
