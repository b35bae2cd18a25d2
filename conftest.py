"""What the examples in docstrings are run on: a folder ``ckpts`` with two small runs."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from _pytest.doctest import DoctestItem

from tests.conftest import write_full_run, write_relora_run


@pytest.fixture(scope="session")
def example_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with ``ckpts/full`` and ``ckpts/relora``, and their analysis in ``results``."""
    import rankscope as rs

    folder = tmp_path_factory.mktemp("examples")
    rng = np.random.default_rng(11)
    write_full_run(folder / "ckpts" / "full", rng)
    write_relora_run(folder / "ckpts" / "relora", rng)
    rs.analyze(folder / "ckpts", out=folder / "results", subspaces=4, jobs=1)
    return folder


@pytest.fixture(autouse=True)
def _example(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """Run each example in a copy of that folder, so that none depends on another."""
    if not isinstance(request.node, DoctestItem):
        yield
        return
    import matplotlib as mpl

    mpl.use("agg")
    shutil.copytree(request.getfixturevalue("example_folder"), tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    yield
    import matplotlib.pyplot as plt

    plt.close("all")
