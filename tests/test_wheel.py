"""The built wheel in an environment that holds what it declares, and nothing else."""

import importlib.metadata as metadata
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from packaging.requirements import Requirement
from safetensors.numpy import save_file

from tests.documents import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.skipif(os.name == "nt", reason="links packages")]
EXTRAS = {
    "train {config}": "rankscope[train]",
    "evaluate run --text text.txt": "rankscope[train]",
    "analyze run --engine cuda": "rankscope[torch]",
    "analyze run --engine dask": "rankscope[dask]",
    "watch run --to tensorboard": "rankscope[tensorboard]",
}


def pip(*arguments: str | Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pip", "--disable-pip-version-check", *map(str, arguments)],
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy to build from: setuptools leaves files beside what it builds, and finds older ones."""
    folder = tmp_path_factory.mktemp("source") / "rankscope"
    shutil.copytree(
        ROOT / "rankscope", folder / "rankscope", ignore=shutil.ignore_patterns("__py*")
    )
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    return folder


@pytest.fixture(scope="module")
def wheel(source: Path) -> Path:
    pip("wheel", source, "--no-deps", "--no-build-isolation", "--wheel-dir", source.parent)
    return next(source.parent.glob("*.whl"))


def declared(name: str, seen: set[str]) -> Iterator[metadata.Distribution]:
    """A distribution and what it needs, without extras."""
    if name in seen:
        return
    seen.add(name)
    found = metadata.distribution(name)
    yield found
    for line in found.requires or ():
        need = Requirement(line)
        if need.marker is None or need.marker.evaluate({"extra": ""}):
            yield from declared(re.sub(r"[-_.]+", "-", need.name).lower(), seen)


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the wheel and links to the packages that it declares."""
    folder = tmp_path_factory.mktemp("empty")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "venv"], check=True)
    site = next((folder / "venv" / "lib").glob("python*")) / "site-packages"
    for one in declared("rankscope", set()):
        if one.metadata["Name"] == "rankscope":
            continue
        for top in {path.parts[0] for path in one.files or ()} - {"..", "__pycache__"}:
            target = Path(str(one.locate_file(top)))
            if target.exists() and not (site / top).exists():
                (site / top).symlink_to(target)
    pip("--python", folder / "venv" / "bin" / "python", "install", "--no-deps", wheel)
    return folder / "venv" / "bin"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("place")
    random = np.random.default_rng(0)
    for step in (0, 10):
        folder = place / "run" / f"checkpoint-{step}"
        folder.mkdir(parents=True)
        weights = {
            f"model.layers.0.self_attn.{role}_proj.weight": random.normal(size=(8, 8))
            for role in "qkvo"
        }
        save_file(weights, folder / "model.safetensors")
    (place / "text.txt").write_text("Once there was a text.", encoding="utf-8")
    return place


def rankscope(environment: Path, place: Path, command: str) -> subprocess.CompletedProcess[str]:
    config = next((ROOT / "configs").glob("demo-full.toml"))
    return subprocess.run(
        [environment / "rankscope", *command.format(config=config).split()],
        cwd=place,
        env={"PATH": os.environ["PATH"], "HOME": str(place), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )


def test_it_analyses_and_draws(environment: Path, place: Path) -> None:
    for command in ("--version", "analyze run --out results", "figures results --only per-weights"):
        done = rankscope(environment, place, command)
        assert (done.returncode, "Traceback" in done.stderr) == (0, False), (command, done.stderr)
    made = {path.name for path in (place / "results").rglob("*")}
    assert made >= {"metrics.parquet", "metrics.csv", "per-weights.pdf"}


@pytest.mark.parametrize("command", EXTRAS)
def test_what_needs_an_extra_names_it(environment: Path, place: Path, command: str) -> None:
    done = rankscope(environment, place, command)
    lines = done.stderr.strip().splitlines()
    assert done.returncode in (2, 4) and EXTRAS[command] in lines[-1] and len(lines) <= 2


def test_the_wheel_holds_the_package_and_its_data_alone(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    kept = subprocess.run(
        ["git", "ls-files", "rankscope"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.split()
    tracked = {name for name in kept if not name.endswith(".md")}
    if tracked:  # not where there is no git
        assert names == tracked
    assert all(name.startswith("rankscope/") for name in names)
    assert "rankscope/py.typed" in names


def test_the_source_archive_gives_the_same_wheel(source: Path, wheel: Path, tmp_path: Path) -> None:
    code = "import setuptools.build_meta as b, sys; print(b.build_sdist(sys.argv[1]))"
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path],
        cwd=source,
        capture_output=True,
        text=True,
        check=True,
    )
    archive = tmp_path / done.stdout.split()[-1]
    with tarfile.open(archive) as source:
        source.extractall(tmp_path / "source", filter="data")
    again = tmp_path / "again"
    pip("wheel", next((tmp_path / "source").iterdir()), "--no-deps", "--no-build-isolation",
        "--wheel-dir", again)  # fmt: skip
    built = next(again.glob("*.whl"))
    with zipfile.ZipFile(wheel) as one, zipfile.ZipFile(built) as other:
        assert {i.filename: i.CRC for i in one.infolist() if "RECORD" not in i.filename} == {
            i.filename: i.CRC for i in other.infolist() if "RECORD" not in i.filename
        }
