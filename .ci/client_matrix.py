"""The client's tests on every Python from 3.11 on that this machine has.

Usage: client_matrix.py [--short] [PYTEST ARGUMENTS]

Looks for interpreters on the path and among pyenv's. Each gets an environment of its own in
`.venv-matrix` with the pinned packages of `config/requirements/client.txt`: what a plain install
of the client brings, and pytest. What needs a gateway is skipped there. `--short` runs the newest
interpreter only, on the tests of the parts that depend most on it (tasks, threads, sockets). It
imports the others, since a test may have come to need more than the client's packages.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
REQUIREMENTS = ROOT / "config" / "requirements" / "client.txt"
ENVIRONMENTS = ROOT / ".venv-matrix"
OLDEST = (3, 11)
RUN_LIMIT_S = 420
INSTALL_LIMIT_S = 300
SHORT = (
    "connector",
    "device_context",
    "dialer",
    "draining",
    "main",
    "outbox_thread",
    "supervisor",
    "terminal",
)
ASK = "import sys; print(*sys.version_info[:3])"


def candidates() -> list[Path]:
    """Paths that may be interpreters."""
    found = [shutil.which(f"python3.{minor}") for minor in range(OLDEST[1], 20)]
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    return [
        *(Path(each) for each in found if each is not None),
        *sorted(pyenv.glob("3.*/bin/python")),
    ]


def interpreters() -> dict[tuple[int, int], Path]:
    """The newest interpreter of each version, oldest version first."""
    newest: dict[tuple[int, int], tuple[int, Path]] = {}
    for path in candidates():
        asked = subprocess.run([path, "-c", ASK], capture_output=True, text=True, check=False)
        if asked.returncode != 0:  # a shim without its version
            continue
        major, minor, patch = map(int, asked.stdout.split())
        if (major, minor) >= OLDEST and patch >= newest.get((major, minor), (-1, path))[0]:
            newest[major, minor] = patch, path
    return {version: newest[version][1] for version in sorted(newest)}


def environment(version: tuple[int, int], python: Path) -> Path:
    """The interpreter of an environment with the pinned packages."""
    directory = ENVIRONMENTS / f"{version[0]}.{version[1]}"
    inside = directory / "bin" / "python"
    stamp = directory / ".installed"
    if not stamp.exists() or stamp.stat().st_mtime < REQUIREMENTS.stat().st_mtime:
        subprocess.run([python, "-m", "venv", "--clear", directory], check=True)
        subprocess.run(
            [inside, REQUIREMENTS.with_name("install.py"), REQUIREMENTS],
            check=True,
            timeout=INSTALL_LIMIT_S,
        )
        stamp.touch()
    return inside


def runs(short: bool) -> list[list[str]]:
    """The arguments of pytest, for each run of it."""
    if not short:
        return [["tests/clients"]]
    quick = [f"tests/clients/python/test_{name}.py" for name in SHORT]
    return [["tests/clients", "--collect-only", "-qq"], quick]


def ended(command: list[str | Path], environ: dict[str, str]) -> int | str:
    """The status of a command, or why it has none."""
    try:
        done = subprocess.run(command, cwd=ROOT, check=False, timeout=RUN_LIMIT_S, env=environ)
    except subprocess.TimeoutExpired:
        return f"no end within {RUN_LIMIT_S} s"
    return done.returncode


def main(arguments: list[str]) -> int:
    short = "--short" in arguments
    more = [each for each in arguments if each != "--short"]
    found = interpreters()
    chosen = dict([max(found.items())]) if short and found else found
    if not any(version > OLDEST for version in chosen):
        print("client-matrix: SKIPPED: there is no Python newer than 3.11 here", file=sys.stderr)
        return 0
    # What is missing in these environments is missing on purpose, in CI too.
    environ = {name: value for name, value in os.environ.items() if name != "CI"}
    # The client is not installed there; the processes that its tests start must find it too.
    environ["PYTHONPATH"] = str(ROOT / "clients" / "python")
    failed = []
    for version, python in chosen.items():
        name = re.sub(r"[(), ]+", ".", str(version)).strip(".")
        print(f"client-matrix: Python {name} ({python})", flush=True)
        inside = environment(version, python)
        for tests in runs(short):
            command: list[str | Path] = [
                inside,
                "-X",
                "dev",
                "-W",
                "error",
                "-m",
                "pytest",
                *tests,
                *more,
            ]
            code = ended(command, environ)
            if code != 0:
                failed.append(f"{name} ({code})")
                break
    if failed:
        print(f"client-matrix: failed on Python {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
