"""One's own metric: a function of singular values, over the store, in the table and in figures."""

import math
import shutil
import warnings
from collections import Counter
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load_file

import rankscope as rs
from rankscope.results import spectra_store, stored_rows
from tests.conftest import write_adapter, write_full_run, write_relora_run

OLDER = Path(__file__).parent / "version-1"


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("own")
    rng = np.random.default_rng(5)
    write_full_run(folder / "ckpts" / "full", rng)
    write_relora_run(folder / "ckpts" / "relora", rng)
    rs.analyze(folder / "ckpts", out=folder / "results", roles="q,v,o", jobs=1)
    return folder


@pytest.fixture
def results(runs: Path) -> rs.Results:
    return rs.open_results(runs / "results")


def test_the_column_is_the_function_of_each_matrix(runs: Path, results: rs.Results) -> None:
    """Of weights, by numpy from their files."""
    table = results.with_metric("middle", lambda s: s[len(s) // 2] / s.sum()).metrics
    rows = table.query("run == 'full' and component == 'weight'")
    assert len(rows) == 3 * 2 * 3
    for row in rows.itertuples():
        path = runs / "ckpts" / "full" / f"checkpoint-{row.step}" / "model.safetensors"
        s = np.linalg.svd(load_file(path)[row.name].astype(np.float64), compute_uv=False)
        assert row.middle == pytest.approx(s[len(s) // 2] / s.sum(), rel=1e-9)


def test_a_metric_of_the_package_gives_its_column(results: rs.Results) -> None:
    """Also of products and changes, and of heads; ``shape`` goes to functions that take it."""
    table = (
        results.with_metric("own_per", rs.proportional_effective_rank)
        .with_metric("own_stable", rs.stable_rank)
        .metrics
    )
    assert (table["status"] != "ok").any() and table["per"].isna().any()
    for own, column in (("own_per", "per"), ("own_stable", "stable_rank")):
        pd.testing.assert_series_equal(table[own], table[column], check_names=False)
    rest = table.drop(columns=["own_per", "own_stable"])
    pd.testing.assert_frame_equal(rest, results.metrics)
    assert rest.attrs == results.metrics.attrs


def test_each_file_is_read_once_and_only_when_the_table_is_used(
    results: rs.Results, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: Counter[Path] = Counter()

    def counted(path: Path) -> list[spectra_store.Entry]:
        read[path] += 1
        return spectra_store.read_entries(path)

    monkeypatch.setattr(stored_rows, "read_entries", counted)
    both = results.with_metric("one", len).with_metric("two", np.sum)
    assert not read
    assert len(both.metrics) == len(both.metrics)
    assert set(read.values()) == {1} and len(read) == len(
        results.metrics[["run", "step"]].drop_duplicates()
    )


def test_the_results_themselves_stay_as_they_are(results: rs.Results) -> None:
    more = results.with_metric("count", len)
    assert "count" in more.metrics and "count" not in results.metrics
    assert more.spectra("merge").equals(results.spectra("merge"))
    assert results.own == () and hash(more) != hash(results)


def test_a_function_cannot_change_what_the_next_one_gets(results: rs.Results) -> None:
    def greedy(s: np.ndarray) -> float:
        s[:] = 0
        return 0.0

    table = results.with_metric("greedy", greedy).with_metric("top", lambda s: s[0]).metrics
    known = table["per"].notna()
    assert (table.loc[known, "top"] == table.loc[known, "spectral_norm"]).all()


@pytest.mark.parametrize("name", ["per", "step", "window", "update_cosine", "mine"])
def test_a_name_that_is_taken_is_refused(results: rs.Results, name: str) -> None:
    with pytest.raises(rs.RankscopeError, match=f"a column '{name}' already"):
        results.with_metric("mine", len).with_metric(name, len)


@pytest.mark.parametrize("name", ["", "my metric", "1st", "a$b"])
def test_a_name_is_an_identifier(results: rs.Results, name: str) -> None:
    with pytest.raises(rs.RankscopeError, match="`name` is "):
        results.with_metric(name, len)


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("3", "'3'"),
        (None, "None"),
        (1j, "1j"),
        (np.ones(2), r"array\(\[1., 1.\]\)"),
        ([1], r"\[1\]"),
        (10**400, "1000"),
    ],
)
def test_what_is_not_a_number_is_named_with_the_matrix(
    results: rs.Results, given: object, shown: str
) -> None:
    where = r"weight model.layers.0.self_attn.q_proj.weight of full at step 5"
    with pytest.raises(rs.RankscopeError, match=f"metric 'mine' gave {shown}.* for {where}: "):
        _ = results.with_metric("mine", lambda s: given).metrics  # type: ignore[arg-type, return-value]


def test_a_function_that_fails_is_named_with_the_matrix(results: rs.Results) -> None:
    with pytest.raises(
        rs.RankscopeError, match=r"'mine' failed for adapter .*: IndexError: "
    ) as failed:
        _ = results.with_metric("mine", lambda s: s[3]).metrics  # adapters have rank 2
    message = str(failed.value)
    assert "\n" not in message and len(message) < 500
    assert isinstance(failed.value.__cause__, IndexError)


@pytest.mark.parametrize("number", [2, True, np.float32(2), np.int64(2), np.array(2.0), math.inf])
def test_numbers_of_every_kind_are_taken(results: rs.Results, number: float) -> None:
    table = results.with_metric("mine", lambda s: number).metrics
    assert set(table["mine"].dropna()) == {float(number)}
    assert table["mine"].dtype == np.float64


def test_undefined_is_empty(results: rs.Results) -> None:
    assert results.with_metric("mine", lambda s: math.nan).metrics["mine"].isna().all()


def test_of_a_matrix_without_scale_only_what_does_not_depend_on_it_is_given(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    module = "model.layers.0.self_attn.q_proj"
    for step in (1, 2):
        pair = rng.normal(size=(8, 2)), rng.normal(size=(2, 8))
        write_adapter(tmp_path / "run" / f"checkpoint-{step}", {module: pair}, scale=2.0)
        (tmp_path / "run" / f"checkpoint-{step}" / "adapter_config.json").unlink()
    table = rs.analyze(tmp_path / "run", out=tmp_path / "out", jobs=1)
    assert table["spectral_norm"].isna().all() and table["per"].notna().all()
    own = rs.open_results(tmp_path / "out").with_metric("top", lambda s: s[0])
    found = own.with_metric("gap", lambda s: s[0] / s[1]).metrics
    assert found["top"].isna().all() and found["gap"].notna().all()
    above = own.with_metric("above", lambda s: (s > 0.01).sum())
    guarded = above.with_metric("guarded", lambda s: s[0] / (s.sum() + 1e-12)).metrics
    assert guarded["above"].isna().all() and guarded["guarded"].notna().all()


def test_older_stores_have_it_too(tmp_path: Path) -> None:
    shutil.copytree(OLDER, tmp_path / "results")
    results = rs.open_results(tmp_path / "results").with_metric("own", rs.effective_rank)
    with pytest.warns(rs.RankscopeWarning, match="older version"):
        table = results.metrics
    pd.testing.assert_series_equal(table["own"], table["effective_rank"], check_names=False)


def test_what_the_store_lacks_is_said(runs: Path, tmp_path: Path) -> None:
    shutil.copytree(runs / "results", tmp_path / "results")
    next((tmp_path / "results" / "spectra").glob("full*/*00005.safetensors")).unlink()
    results = rs.open_results(tmp_path / "results").with_metric("own", len)
    with pytest.warns(
        rs.RankscopeWarning, match=r"spectra: lacks \d+ spectra .* `rankscope ana"
    ) as said:
        table = results.metrics
    assert said[0].filename == __file__
    at = (table["run"] == "full") & (table["step"] == 5)
    assert table.loc[at, "own"].isna().all() and table.loc[~at, "own"].notna().any()


def test_a_folder_without_an_analysis_has_no_rows(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        table = rs.Results(tmp_path).with_metric("own", len).metrics
    assert table.empty and "own" in table.columns


def test_every_figure_of_a_column_draws_it(results: rs.Results) -> None:
    mpl.use("agg")
    table = results.with_metric("gap", lambda s: s[0] / s[-1]).metrics
    table["words"] = "no number"
    assert rs.plots.metric(table, "gap", role="q").get_ylabel() == "gap"
    rs.plots.heatmap(table, "gap", run="relora", role="q")
    rs.plots.heatmaps(table, "gap")
    assert (rs.depth_profile(table, "gap")["layers"] == 2).all()
    scores = table[["run", "step"]].drop_duplicates().assign(task="t", group="all", metric="loss")
    scores["value"] = np.arange(len(scores)) % 3 + 1.0
    found = rs.correlate(table, scores, columns=["gap"])
    assert set(found["column"]) == {"gap"} and found["value"].notna().any()
    rs.plots.rank_and_performance(found)
    for column in ("words", "gapp"):
        for draw in (rs.plots.metric, rs.plots.heatmaps, rs.depth_profile):
            with pytest.raises(rs.RankscopeError, match=f"unknown metric '{column}'.*of your own"):
                draw(table, column)
    import matplotlib.pyplot as plt

    plt.close("all")
