"""The distribution `tidegate` is the client alone."""

import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest

import tidegate

ROOT = Path(__file__).parents[3]
CLIENT = ROOT / "clients" / "python"

GUARD = """
import importlib.abc, sys
ALLOWED = {"tidegate", "websockets", "msgspec"}
class Guard(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        top = name.split(".")[0]
        if top not in ALLOWED and top not in sys.stdlib_module_names:
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Guard())
import tidegate.__main__, tidegate.device, tidegate.testing
print("imported")
"""


def test_importing_the_client_needs_only_what_a_plain_install_brings():
    done = subprocess.run(
        [sys.executable, "-c", GUARD], capture_output=True, text=True, check=True, cwd=CLIENT
    )
    assert done.stdout.strip() == "imported"


def test_a_plain_install_brings_a_websocket_library_and_a_codec():
    project = tomllib.loads((CLIENT / "pyproject.toml").read_text())["project"]
    names = {requirement.split(">")[0] for requirement in project["dependencies"]}
    assert names == {"msgspec", "websockets"}


def test_both_distributions_have_one_version_and_the_gateway_needs_that_client():
    client = tomllib.loads((CLIENT / "pyproject.toml").read_text())["project"]
    gateway = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert gateway["version"] == client["version"]
    assert f"tidegate=={client['version']}" in gateway["dependencies"]


def _builds() -> bool:
    """Whether setuptools is here and new enough. With Python 3.11 comes an old one."""
    project = tomllib.loads((CLIENT / "pyproject.toml").read_text())
    (asked,) = project["build-system"]["requires"]
    try:
        found = version("setuptools")
    except PackageNotFoundError:
        return False
    return int(found.split(".")[0]) >= int(asked.removeprefix("setuptools>="))


@pytest.mark.skipif(not _builds(), reason="a wheel is built with setuptools")
def test_the_wheel_holds_the_package_and_nothing_else(tmp_path):
    source = shutil.copytree(
        CLIENT, tmp_path / "source", ignore=shutil.ignore_patterns("__pycache__")
    )
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation",
         "--no-index", "--disable-pip-version-check", "--wheel-dir", tmp_path, source],
        check=True,
    )  # fmt: skip
    (wheel,) = tmp_path.glob("tidegate-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    package = CLIENT / "tidegate"
    files = {
        f"tidegate/{path.relative_to(package)}"
        for path in package.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert {"tidegate/py.typed", "tidegate/__main__.py", "tidegate/wire/frames.py"} <= files
    assert {name for name in names if ".dist-info/" not in name} == files


def test_every_public_name_can_be_imported_and_no_other():
    assert set(tidegate.__all__) == set(tidegate._MODULES)
    assert all(hasattr(tidegate, name) for name in tidegate.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'Devices'"):
        _ = tidegate.Devices
    assert set(tidegate.__all__) <= set(dir(tidegate))


def test_the_wire_contract_alone_does_not_load_the_client():
    code = "import sys, tidegate.wire.frames; print('tidegate.device' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=CLIENT
    )
    assert done.stdout.strip() == "False"
