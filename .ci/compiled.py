"""The pure objects of admission and of the simulator as extension modules, built with mypyc.

The modules and those beside them are copied to `build/compiled`, compiled there, and their tests
run against them. Nothing else uses the result; `PYTHONPATH=build/compiled` makes a command use it.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

_TOP: Final = Path(__file__).resolve().parent.parent
_BUILT: Final = _TOP / "build" / "compiled"
_PACKAGES: Final = {
    "gateway": _TOP / "gateway",
    "loadtest": _TOP / "loadtest",
    "tidegate": _TOP / "clients" / "python" / "tidegate",
}
# Interpreted classes cannot inherit from these: not the observer, from which metrics inherit, nor
# the calendar, from which tests do.
_ADMISSION: Final = (
    "desk", "entitlement", "fairness", "gcra", "hold", "lot", "office", "promises", "ticket",
)  # fmt: skip
_SIMULATOR: Final = ("devices/policies", "schedule", "simulator")
_MODULES: Final = (
    *(f"gateway/admission/{name}.py" for name in _ADMISSION),
    *(f"loadtest/{name}.py" for name in _SIMULATOR),
    "tidegate/backoff.py",
)
_SETUP: Final = f"""
from mypyc.build import mypycify
from setuptools import setup

options = ["--config-file=", "--ignore-missing-imports", "--python-version=3.11"]
setup(name="compiled", packages=[], ext_modules=mypycify([*options, *{_MODULES!r}], opt_level="2"))
"""
_CHECK: Final = """
import gateway.admission.desk, loadtest.simulator, tidegate.backoff
for module in (gateway.admission.desk, loadtest.simulator, tidegate.backoff):
    assert module.__file__.endswith(".so"), module.__file__
"""
_TESTS: Final = (
    "tests/admission",
    "tests/clients/python/test_backoff.py",
    "tests/loadtest/test_schedule.py",
    "tests/loadtest/test_simulator.py",
)


def main() -> None:
    """Build them and run the tests; the first failure ends it with its exit status."""
    shutil.rmtree(_BUILT, ignore_errors=True)
    for name, source in _PACKAGES.items():
        shutil.copytree(source, _BUILT / name, ignore=shutil.ignore_patterns("__pycache__"))
    setup = _BUILT / "setup.py"
    setup.write_text(_SETUP)
    _run(str(setup), "--quiet", "build_ext", "--inplace")
    _run("-c", _CHECK)
    paths = f"pythonpath={_BUILT} {_TOP / 'tests'}"
    _run(
        "-m", "pytest", "-q", "-m", "not long", "-o", paths, *(str(_TOP / each) for each in _TESTS)
    )


def _run(*arguments: str) -> None:
    environment = {**os.environ, "PYTHONPATH": str(_BUILT)}
    command = [sys.executable, "-P", *arguments]
    done = subprocess.run(command, cwd=_BUILT, env=environment, check=False)
    if done.returncode:
        sys.exit(done.returncode)


if __name__ == "__main__":
    main()
