"""What the examples in docstrings are run on, and where analyses compute: in this process.

Worker processes take half a second to start, and the tests analyse some hundreds of times. They
have tests of their own, and one that they give the same bits.
"""

from __future__ import annotations

import gc
import shutil
from collections.abc import Generator, Iterator
from pathlib import Path

import numpy as np
import pytest
from _pytest.doctest import DoctestItem

from tests.conftest import write_full_run, write_relora_run


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Collect without looking for garbage, which takes a fifth of the time and finds little."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()


@pytest.fixture(autouse=True, scope="session")
def _no_workers() -> Iterator[None]:
    from rankscope.analysis import engines
    from tests.analysis.series import Inline

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(engines.ENGINES, "local", lambda _jobs, _start: Inline())
        yield


@pytest.fixture
def workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the local engine be worker processes, as it is for a user."""
    from rankscope.analysis import engines

    monkeypatch.setitem(engines.ENGINES, "local", engines._local)


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
def _example(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Run each example in a copy of that folder, so that none depends on another."""
    if not isinstance(request.node, DoctestItem):
        yield
        return
    import matplotlib as mpl

    tmp_path = request.getfixturevalue("tmp_path")  # not above: every test would get a folder

    mpl.use("agg")
    shutil.copytree(request.getfixturevalue("example_folder"), tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    yield
    import matplotlib.pyplot as plt

    plt.close("all")
