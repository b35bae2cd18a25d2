import json
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load_file, save_file

import rankscope as rs
from rankscope.analysis.analyze import analyze_runs
from rankscope.analysis.analyzed import Analysis
from rankscope.analysis.local_workers import LocalWorkers
from rankscope.analysis.plan import plan_run
from rankscope.analysis.request import Selection
from rankscope.checkpoints.discovery import survey
from rankscope.errors import RankscopeError, WrongSettingError
from rankscope.results import results as opened
from rankscope.results.columns import COLUMNS, EVALUATION_COLUMNS, EVALUATION_FILE, KEY
from rankscope.results.results import table_of
from tests.conftest import (
    HEADS,
    LAYERS,
    MODULES,
    RANK,
    WIDTH,
    TinyRun,
    random_weights,
    write_model,
)


def analysis(path: Path, out: Path, *, jobs: int = 2) -> Analysis:
    return analyze_runs(survey([path]), Selection(), out=out, engine=LocalWorkers(jobs))


@pytest.mark.slow
def test_the_table_has_one_row_a_matrix_a_step(relora_run: TinyRun, workers: None) -> None:
    table = rs.analyze(relora_run.path)
    assert list(table.columns) == list(COLUMNS)
    assert not table.duplicated(list(KEY)).any()
    counts = table.groupby("component").size().to_dict()
    modules = len(MODULES)
    assert counts == {
        "weight": 4 * modules,
        "adapter": 4 * modules,
        "update": 3 * modules,
        "gradient": 4 * modules,
        "ov": 4 * LAYERS * HEADS,
        "merge": 2 * modules,
        "merged_total": 2 * modules,
    }
    assert (table["step"].diff().dropna() >= 0).all()


def test_the_rank_of_merges_climbs_by_one_adapter_a_merge(relora_run: TinyRun) -> None:
    table = rs.analyze(relora_run.path, components=["merged_total"])
    ranks = table.groupby("step")["numerical_rank"].agg(["min", "max"])
    assert ranks.loc[10].tolist() == [RANK, RANK]
    assert ranks.loc[20].tolist() == [2 * RANK, 2 * RANK]


def test_an_update_over_a_merge_has_its_adapters_rank(relora_run: TinyRun) -> None:
    table = rs.analyze(relora_run.path, components=["update"]).set_index("step")
    assert (table.loc[20, "numerical_rank"] == RANK).all()
    assert table["condition_number"].isna().all() and (table["signal_to_noise"] > 100).all()


def test_a_zero_adapter_is_a_row_without_ranks(relora_run: TinyRun) -> None:
    table = rs.analyze(relora_run.path, components=["adapter"], steps=(0, 0, 1))
    assert (table["status"] == "zero").all()
    assert table[["per", "effective_rank", "numerical_rank", "condition_number"]].isna().all().all()
    assert (table["spectral_norm"] == 0).all()


@pytest.mark.slow
def test_a_second_call_computes_nothing_and_gives_the_same(
    relora_run: TinyRun, tmp_path: Path
) -> None:
    first = analysis(relora_run.path, tmp_path / "out")
    written = (tmp_path / "out" / "metrics.csv").read_bytes()
    second = analysis(relora_run.path, tmp_path / "out")
    assert first.computed == len(first.table) and second.computed == 0
    pd.testing.assert_frame_equal(first.table, second.table)
    assert (tmp_path / "out" / "metrics.csv").read_bytes() == written


@pytest.mark.slow
def test_only_what_changed_is_computed_again(relora_run: TinyRun, tmp_path: Path) -> None:
    analysis(relora_run.path, tmp_path / "out")
    path = relora_run.path / "checkpoints" / "step-00000030" / "model.safetensors"
    tensors = load_file(path)
    name = "model.layers.0.mlp.up_proj.weight"
    tensors[name] = 2 * tensors[name]
    save_file(tensors, path)
    again = analysis(relora_run.path, tmp_path / "out")
    modules = len(MODULES)
    assert again.computed == modules + modules + LAYERS * HEADS  # weights, updates and circuits
    clean = analysis(relora_run.path, tmp_path / "clean")
    pd.testing.assert_frame_equal(again.table, clean.table)


@pytest.mark.slow
def test_asking_for_less_keeps_what_is_stored(relora_run: TinyRun, tmp_path: Path) -> None:
    analysis(relora_run.path, tmp_path / "out")
    rs.analyze(relora_run.path, out=tmp_path / "out", components=["weight"], roles=["q"])
    assert analysis(relora_run.path, tmp_path / "out").computed == 0


@pytest.mark.slow
def test_the_number_of_workers_changes_no_bit(relora_run: TinyRun, tmp_path: Path) -> None:
    for jobs in (1, 3):
        analysis(relora_run.path, tmp_path / str(jobs), jobs=jobs)
    one, three = ((tmp_path / str(jobs) / "metrics.csv").read_bytes() for jobs in (1, 3))
    assert one == three


def test_selections_restrict_the_table(relora_run: TinyRun) -> None:
    table = rs.analyze(
        relora_run.path,
        components=["weight"],
        roles=["v", "embed"],
        layers=[1],
        steps=(10, None, 20),
    )
    assert set(table["step"]) == {10, 30}
    assert set(table["role"]) == {"v"}  # embeddings are in no layer
    assert set(table["layer"]) == {1}


def test_updates_span_the_steps_that_are_asked_for(relora_run: TinyRun) -> None:
    table = rs.analyze(relora_run.path, components=["update"], steps=(0, None, 20))
    assert set(table["step"]) == {20}
    assert (table["numerical_rank"] == 2 * RANK).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"components": ["wieght"]}, "unknown name 'wieght' in `components`: choose from weight"),
        ({"roles": "q,query"}, "unknown name 'query' in `roles`"),
        ({"steps": (0, 10, 0)}, "stride"),
        (
            {"steps": (1000, None, 1)},
            "no checkpoint at the requested `steps`; .* steps 0, 10, 20, 30",
        ),
        ({"layout": "gguf"}, "'gguf' is not a layout"),
    ],
)
def test_options_that_make_no_sense_are_refused(
    options: dict[str, object], message: str, relora_run: TinyRun
) -> None:
    with pytest.raises(RankscopeError, match=message):
        rs.analyze(relora_run.path, **options)  # type: ignore[arg-type]


def test_nan_costs_one_matrix_and_is_told_every_time(relora_run: TinyRun, tmp_path: Path) -> None:
    path = relora_run.path / "checkpoints" / "step-00000030" / "model.safetensors"
    tensors = load_file(path)
    tensors["model.layers.1.mlp.up_proj.weight"][0, 0] = np.nan
    save_file(tensors, path)
    for _ in range(2):
        with pytest.warns(UserWarning, match="up_proj.weight': holds NaN or infinity"):
            table = rs.analyze(relora_run.path, out=tmp_path / "out", components=["weight"])
        assert table["status"].value_counts().to_dict() == {
            "ok": 4 * len(MODULES) - 1,
            "nonfinite": 1,
        }
        assert table.attrs["skipped"][0]["reason"] == "nonfinite"
    skipped = [json.loads(s) for s in (tmp_path / "out" / "skipped.jsonl").read_text().splitlines()]
    assert [skip["tensor"] for skip in skipped] == ["model.layers.1.mlp.up_proj.weight"]


def test_the_update_after_a_broken_checkpoint_spans_it(relora_run: TinyRun, tmp_path: Path) -> None:
    (relora_run.path / "checkpoints" / "step-00000020" / "model.safetensors").write_bytes(b"")
    with pytest.warns(UserWarning, match="is empty, not a safetensors file"):
        table = rs.analyze(relora_run.path, components=["weight", "update"])
    assert set(table["step"]) == {0, 10, 30}
    assert (table.query("component == 'update' and step == 30")["numerical_rank"] == 2 * RANK).all()


def test_a_shape_that_changes_is_a_skipped_update(full_run: Path) -> None:
    folder = full_run / "checkpoint-100"
    tensors = load_file(folder / "model.safetensors")
    name = "model.layers.0.mlp.up_proj.weight"
    tensors[name] = np.vstack([tensors[name], tensors[name]])
    save_file(tensors, folder / "model.safetensors")
    with pytest.warns(UserWarning, match=r"^1 skipped, .*\[shape-changed\]$"):
        table = rs.analyze(full_run, components=["update"])
    row = table[(table["step"] == 100) & (table["name"] == name)].iloc[0]
    assert row["status"] == "skipped:shape-changed"


@pytest.mark.slow
def test_a_damaged_store_is_computed_anew(relora_run: TinyRun, tmp_path: Path) -> None:
    first = analysis(relora_run.path, tmp_path / "out")
    damaged = next((tmp_path / "out" / "spectra").glob("*/step-00000010.safetensors"))
    damaged.write_bytes(damaged.read_bytes()[:-5])
    again = analysis(relora_run.path, tmp_path / "out")
    assert 0 < again.computed < len(first.table)
    pd.testing.assert_frame_equal(first.table, again.table)


@pytest.mark.slow
def test_a_killed_analysis_loses_only_the_checkpoint_in_hand(
    relora_run: TinyRun, tmp_path: Path
) -> None:
    command = [sys.executable, "-c", "import rankscope.cli as c; c.main()", "analyze"]
    process = subprocess.Popen([*command, str(relora_run.path), "--out", str(tmp_path / "out")])
    store = tmp_path / "out" / "spectra"
    deadline = time.monotonic() + 30
    while not list(store.glob("*/step-*")) and time.monotonic() < deadline:
        time.sleep(0.002)
    process.kill()
    process.wait()
    kept = len(list(store.glob("*/step-*.safetensors")))
    assert kept >= 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again = analysis(relora_run.path, tmp_path / "out")
    clean = analysis(relora_run.path, tmp_path / "clean")
    pd.testing.assert_frame_equal(again.table, clean.table)
    assert again.computed < clean.computed


@pytest.mark.slow
def test_results_open_again_with_the_same_columns_and_types(
    relora_run: TinyRun, tmp_path: Path
) -> None:
    found = analysis(relora_run.path, tmp_path / "out")
    results = rs.open_results(tmp_path / "out")
    pd.testing.assert_frame_equal(results.metrics, found.table)
    assert results.training.to_dict("records") == [{"run": "relora", "step": 10, "loss": 2.0}]
    spectra = results.spectra("adapter", step=20, layer=1, role="v")
    assert spectra["index"].tolist() == list(range(RANK))
    assert (spectra["lower"] <= spectra["singular_value"]).all()
    row = found.table.query("component == 'adapter' and step == 20 and layer == 1 and role == 'v'")
    assert spectra["singular_value"].iloc[0] == row["spectral_norm"].iloc[0]
    assert results.evaluation.empty
    assert tuple(results.evaluation.columns) == EVALUATION_COLUMNS


def test_an_evaluation_alone_has_no_metrics(tmp_path: Path) -> None:
    with pytest.raises(RankscopeError, match=r"none of metrics\.parquet, evaluation\.parquet"):
        rs.open_results(tmp_path)
    row = ("a", 5, "novels", "all", "loss", 3.0, 2.9, 3.1, 7)
    table = opened.typed_evaluation(pd.DataFrame([row], columns=list(EVALUATION_COLUMNS)))
    table.to_parquet(tmp_path / EVALUATION_FILE)
    results = rs.open_results(tmp_path)
    pd.testing.assert_frame_equal(results.evaluation, table)
    pd.testing.assert_frame_equal(results.metrics, table_of([]))
    assert results.training.empty
    assert results.spectra("weight").empty


def test_the_input_is_never_the_output(relora_run: TinyRun) -> None:
    with pytest.raises(RankscopeError, match="choose another folder for `out`"):
        analysis(relora_run.path, relora_run.path)


def test_planning_reads_headers_only(relora_run: TinyRun, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: object) -> None:
        raise AssertionError("a tensor was read")

    merges = relora_run.path / "merges"
    for path in merges.glob("*"):
        path.unlink()  # the scales of merges are read, being single numbers
    monkeypatch.setattr("rankscope.checkpoints.tensors.StoredTensor.read", refuse)
    plans = list(plan_run(survey([relora_run.path]).runs[0], Selection()))
    assert [plan.step for plan in plans] == [0, 10, 20, 30]


def test_circuits_have_the_rank_of_a_head(relora_run: TinyRun) -> None:
    table = rs.analyze(relora_run.path, components=["ov"])
    assert (table["max_rank"] == WIDTH // HEADS).all()
    assert (table[["rows", "cols"]] == WIDTH).all().all()
    assert sorted(set(table["head"])) == list(range(HEADS))


@pytest.mark.slow
def test_logs_of_other_runs_leave_the_folder(
    relora_run: TinyRun, tmp_path: Path, rng: np.random.Generator
) -> None:
    (relora_run.path / "metrics.jsonl").write_text('{"step": 10, "loss": 1.0}\n')
    rs.analyze(relora_run.path, out=tmp_path / "out")
    assert set(rs.open_results(tmp_path / "out").training["run"]) == {relora_run.path.name}
    write_model(tmp_path / "other" / "step_1", random_weights(rng))
    rs.analyze(tmp_path / "other", out=tmp_path / "out")
    assert rs.open_results(tmp_path / "out").training.empty


def test_spectra_of_an_unknown_component_are_refused(relora_run: TinyRun, tmp_path: Path) -> None:
    rs.analyze(relora_run.path, components="weight", out=tmp_path)
    with pytest.raises(WrongSettingError, match="'updates' in `component`: it holds weight"):
        rs.open_results(tmp_path).spectra("updates")
