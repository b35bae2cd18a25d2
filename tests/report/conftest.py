from pathlib import Path

import pytest

import rankscope as rs
from tests.planted import write_planted_runs


@pytest.fixture(scope="package")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results of the two runs whose singular values are prescribed."""
    folder = tmp_path_factory.mktemp("planted")
    write_planted_runs(folder / "ckpts")
    rs.analyze(folder / "ckpts", out=folder / "results", jobs=1)
    return folder / "results"
