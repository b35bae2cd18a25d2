"""Competitors, each installed from the package index into a separate environment."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from benchmarks.programs import ROOT

WANTS = {
    "weightwatcher": ("weightwatcher", "torch"),  # reads safetensors with torch
    "diffract-core": ("diffract-core",),
}
NEEDS = {"weightwatcher": (3, 11), "diffract-core": (3, 12)}  # Python
# The torch of this project; another version might bring gigabytes of CUDA along.
PINNED = ("torch",)


@dataclass(frozen=True)
class Peer:
    """A competitor that can be run, or the reason why it cannot."""

    name: str
    python: Path | None
    problem: str = ""


def installed(name: str, scratch: Path, *, interpreter: str | None = None) -> Peer:
    """Install a competitor, unless it is installed already.

    Parameters
    ----------
    name
        One of `WANTS`.
    scratch
        Folder of the environments.
    interpreter
        Python to build them with; by default, one that is new enough is searched for.
    """
    folder = scratch / "peers" / name
    python = folder / "bin" / "python"
    if (folder / "installed").is_file():
        return Peer(name, python)
    builder = interpreter or _interpreter(NEEDS[name])
    if builder is None:
        wanted = ".".join(map(str, NEEDS[name]))
        return Peer(name, None, f"needs Python {wanted}: give one with --peer-python")
    pinned = scratch / "peers" / "constraints.txt"
    pinned.parent.mkdir(parents=True, exist_ok=True)
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pinned.write_text("\n".join(line for line in lines if line.split("==")[0] in PINNED) + "\n")
    pip = (str(python), "-m", "pip", "install", "--quiet", "-c", str(pinned), *WANTS[name])
    for command in ((builder, "-m", "venv", str(folder)), pip):
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        except OSError as error:
            return Peer(name, None, f"cannot be installed: {error}")
        if done.returncode:
            lines = done.stderr.strip().splitlines() or ["no message"]
            return Peer(name, None, f"cannot be installed: {lines[-1]}")
    (folder / "installed").touch()
    return Peer(name, python)


def _interpreter(oldest: tuple[int, int]) -> str | None:
    """Python of at least this version: the running one, or one on the path or from pyenv."""
    if sys.version_info[:2] >= oldest:
        return sys.executable
    versions = [f"3.{minor}" for minor in range(oldest[1], oldest[1] + 4)]
    on_path = [path for v in versions if (path := shutil.which(f"python{v}"))]
    pyenv = Path.home() / ".pyenv" / "versions"
    return next(
        (
            python
            for python in (*on_path, *(str(p) for v in versions for p in _builds(pyenv, v)))
            if _is_as_new(python, oldest)
        ),
        None,
    )


def _builds(pyenv: Path, version: str) -> list[Path]:
    return sorted(pyenv.glob(f"{version}.*/bin/python3"))


def _is_as_new(python: str, oldest: tuple[int, int]) -> bool:
    code = f"import sys, venv, ensurepip; sys.exit(sys.version_info[:2] < {oldest})"
    return subprocess.run((python, "-c", code), capture_output=True, check=False).returncode == 0
