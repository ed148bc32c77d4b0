"""Which tests of the clients run where only the client is installed."""

import importlib.util
from pathlib import Path

HERE = Path(__file__).parent

# Where only the client is installed (`make client-matrix`), tests that need a gateway are left out.
collect_ignore = [
    str(path.relative_to(HERE))
    for path in sorted(HERE.rglob("test_*.py"))
    if importlib.util.find_spec("nats") is None and "support.gateways" in path.read_text()
]


def pytest_report_header():
    return f"left out, for want of a gateway: {', '.join(collect_ignore)}" if collect_ignore else []
