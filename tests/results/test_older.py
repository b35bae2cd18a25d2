"""Results of version 0.1.0 are read: what the store gives is filled, the rest is named."""

import json
import shutil
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from safetensors import safe_open

import rankscope as rs
from rankscope.results.columns import COLUMNS, METRICS
from rankscope.results.older import OF_UPDATES
from rankscope.results.vectors import write_vectors
from tests.conftest import forget_digests
from tests.results.older_run import COMPONENTS, write_older_run

OLDER = Path(__file__).parent / "version-1"
NOT_STORED = (*OF_UPDATES, "entry_gini", "entry_hoyer")
PLACE = ["step", "component", "name", "head"]


@pytest.fixture
def older(tmp_path: Path) -> Path:
    shutil.copytree(OLDER, tmp_path / "results")
    return tmp_path / "results"


def read(folder: Path) -> pd.DataFrame:
    with pytest.warns(rs.RankscopeWarning, match="an older version wrote this table"):
        return rs.open_results(folder).metrics.set_index(PLACE).sort_index()


@pytest.fixture
def now(tmp_path: Path) -> pd.DataFrame:
    """What is found of the same run today."""
    run = write_older_run(tmp_path / "run" / "relora")
    return rs.analyze(run, components=COMPONENTS, jobs=1).set_index(PLACE).sort_index()


def test_the_fixture_is_of_the_first_schema() -> None:
    assert json.loads((OLDER / "analysis.json").read_text())["schema_version"] == 1
    assert len(set(COLUMNS) - set(pd.read_parquet(OLDER / "metrics.parquet").columns)) == 20


def test_every_metric_of_an_older_table_is_what_it_is_today(older: Path, now: pd.DataFrame) -> None:
    """Except noise floors and errors, which are those of its version, and what was not stored."""
    table = read(older)
    assert (table.index == now.index).all()
    floors = ("noise_floor", "noise_source", "signal_to_noise", "significant_bits")
    errors = ("per_error", "sigma_error", "relative_size_error", "noise_share", "tail_index_error")
    for name in set(METRICS) - {*floors, *errors, *NOT_STORED, "route", "condition_number_status"}:
        old, new = (one[name].to_numpy(np.float64, na_value=np.nan) for one in (table, now))
        np.testing.assert_allclose(old, new, rtol=1e-6, err_msg=name)
    for name in ("route", "condition_number_status", "status"):
        assert (table[name] == now[name]).all()


def test_an_older_change_has_its_size_and_its_start(older: Path, now: pd.DataFrame) -> None:
    table = read(older)
    for component in ("update", "cumulative_update"):
        old, new = (one.xs(component, level="component") for one in (table, now))
        assert old["since"].tolist() == new["since"].tolist()
        error = old["relative_size_error"] + new["relative_size_error"]
        assert ((old["relative_size"] - new["relative_size"]).abs() <= error).all()
        assert (old["signal_to_noise"] == old["spectral_norm"] / old["noise_floor"]).all()


def test_a_change_without_its_weight_in_the_table_has_no_size(older: Path) -> None:
    table = pd.read_parquet(older / "metrics.parquet")
    store = next((older / "spectra").glob("*/step-00000010.safetensors"))
    store.unlink()
    found = read(older).xs("update", level="component")
    assert found["relative_size"].isna().tolist() == [True, True, False, False]
    assert found["per_resolved"].notna().all()
    assert len(read(older)) == len(table)


def test_what_stays_empty_is_said_in_one_line(older: Path) -> None:
    with pytest.warns(rs.RankscopeWarning) as said:
        table = rs.open_results(older).metrics
    (line,) = [str(one.message) for one in said]
    assert "\n" not in line and len(line) < 500 and str(older) in line
    for name in ("restarts", "window", "significant_bits", *NOT_STORED):
        assert name in line and table[name].isna().all()
    assert "relative_size" not in line and "`rankscope analyze`" in line


def test_without_its_store_an_older_table_keeps_what_it_says(older: Path) -> None:
    written = pd.read_parquet(older / "metrics.parquet")
    shutil.rmtree(older / "spectra")
    with pytest.warns(rs.RankscopeWarning, match="per_resolved"):
        table = rs.open_results(older).metrics
    assert table["per"].tolist() == written["per"].tolist()
    assert table["per_resolved"].isna().all()


def test_an_analysis_into_an_older_folder_makes_it_anew(older: Path, tmp_path: Path) -> None:
    run = write_older_run(tmp_path / "run" / "relora")
    rs.analyze(run, out=older, components=COMPONENTS, jobs=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        table = rs.open_results(older).metrics
        spectra = rs.open_results(older).spectra("update")
    assert table["significant_bits"].notna().all()
    assert all(table[name].notna().any() for name in NOT_STORED)
    windows = table.loc[table["component"] == "update", "window"]
    assert len(windows) and set(windows) <= {"within", "cycle", "across"}
    assert len(spectra) > 0
    assert json.loads((older / "analysis.json").read_text())["schema_version"] > 1


def test_figures_of_an_older_folder_are_drawn(older: Path) -> None:
    results = rs.open_results(older)
    with pytest.warns(rs.RankscopeWarning):
        table = results.metrics
    axes = rs.plots.metric(table, "per_resolved")
    assert axes.get_lines()


def test_a_table_of_version_3_says_only_what_its_store_lacks(older: Path) -> None:
    run = write_older_run(older.parent / "run" / "relora")
    rs.analyze(run, out=older, components=["weight", "merge"], jobs=1)
    for path in (older / "spectra").rglob("*.safetensors"):
        with safe_open(path, framework="np") as file:
            about = json.loads(file.metadata()["rankscope"])["about"]
            vectors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        about["entries"] = [
            {key: one[key] for key in one if key not in ("cosine", "entries")}
            for one in about["entries"]
        ]
        write_vectors(path, vectors, about, version="3")
    table = older / "metrics.parquet"
    written = pd.read_parquet(table)
    written.drop(columns=list(NOT_STORED)).to_parquet(table)
    forget_digests(older)
    with pytest.warns(rs.RankscopeWarning) as said:
        found = rs.open_results(older).metrics
    (line,) = [str(one.message) for one in said]
    assert "lacks entry_gini, entry_hoyer: `rankscope analyze`" in line
    assert found["per"].tolist() == written["per"].tolist()
    assert found["update_cosine"].isna().all()  # of updates, which this table has none of


def test_a_store_with_changes_over_other_windows_fills_each_row_from_its_own(
    tmp_path: Path,
) -> None:
    run, out = write_older_run(tmp_path / "run" / "relora"), tmp_path / "out"
    steps = rs.open_run(run).steps
    ends = [steps[0], steps[-1]]
    written = rs.analyze(run, out=out, components="update", steps=ends, jobs=1)
    content = (out / "metrics.parquet").read_bytes()
    rs.analyze(run, out=out, components="update", jobs=1)
    (out / "metrics.parquet").write_bytes(content)
    table = pd.read_parquet(out / "metrics.parquet")
    table.drop(columns=["entry_gini", "entry_hoyer"]).to_parquet(out / "metrics.parquet")
    forget_digests(out)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = rs.open_results(out).metrics
    assert found["spectral_norm"].tolist() == written["spectral_norm"].tolist()
    assert found["since"].tolist() == written["since"].tolist()
    assert found["entry_gini"].notna().tolist() == written["entry_gini"].notna().tolist()
