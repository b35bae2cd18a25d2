import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import rankscope as rs
from rankscope.comparison import digest
from rankscope.errors import RankscopeError, WrongSettingError
from tests.conftest import (
    MODULES,
    forget_digests,
    random_factors,
    random_weights,
    write_adapter,
    write_model,
)


def write_run(path: Path, rng: np.random.Generator, *, fall: float) -> Path:
    """A run whose matrices lose half of their dimensions, by a factor that grows."""
    start = random_weights(rng)
    for step in (0, 10, 20):
        tensors = dict(start)
        for module in MODULES:
            u, s, vt = np.linalg.svd(start[f"{module}.weight"], full_matrices=False)
            s[len(s) // 2 :] *= np.exp(-fall * step / 20)
            tensors[f"{module}.weight"] = (u * s @ vt).astype(np.float32)
        write_model(path / f"checkpoint-{step}", tensors)
    log = "".join(f'{{"step": {s}, "loss": {3 - 0.01 * s}}}\n' for s in range(0, 21, 5))
    (path / "metrics.jsonl").write_text(log)
    return path


def write_study(folder: Path) -> Path:
    """Two runs in ``ckpts``, their weights analysed in ``results``."""
    for name, fall in (("flat", 0.0), ("falling", 4.0)):
        write_run(folder / "ckpts" / name, np.random.default_rng(4), fall=fall)
    rs.analyze(folder / "ckpts", out=folder / "results", jobs=1, components="weight", roles="q,up")
    return folder


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_study(tmp_path_factory.mktemp("study"))


def test_runs_are_compared_by_name_and_by_folder(study: Path) -> None:
    by_name = rs.compare("flat", "falling", results=study / "results")
    runs = study / "ckpts" / "flat", study / "ckpts" / "falling"
    by_folder = rs.compare(*runs, results=study / "results")
    assert (by_name.a, by_name.b) == ("flat", "falling")
    (note,) = by_folder.notes
    assert "equal distance from the start: flat, falling: no rows of component cumulative" in note
    pd.testing.assert_frame_equal(by_name.metrics, by_folder.metrics)
    last = by_name.metrics.query("at == 'step' and step_a == 20 and metric == 'per'")
    roles = last[(last["component"] == "weight") & last["layer"].isna()]
    assert (roles["difference"] < -0.05).all()
    first = by_name.metrics.query("at == 'step' and step_a == 0")
    assert (first["difference"] == 0).all()
    assert not first["differs"].any()
    assert set(by_name.metrics["at"]) == {"step", "loss"}
    assert len(by_folder.weights)
    changes = by_folder.weights.query("component == 'cumulative_update'")
    assert changes.empty  # one of the runs did not move
    # What results name may be of another machine, or anything: only what was given is opened.
    assert by_name.weights.empty
    assert by_name.notes[-1] == "the weights are not compared: give both runs by their folders"


@pytest.mark.slow
def test_runs_that_nobody_analysed_are_analysed_once(
    study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs, results = [study / "ckpts" / name for name in ("flat", "falling")], tmp_path / "results"
    first = rs.compare(*runs, results=results)
    written = {path: path.stat().st_mtime_ns for path in results.rglob("*") if path.is_file()}
    kept = rs.compare("flat", "falling", results=study / "results").metrics
    shown = first.metrics[first.metrics["component"].eq("weight")]
    shown = shown[shown["role"].isin(["q", "up"])].reset_index(drop=True)
    pd.testing.assert_frame_equal(shown, kept)
    pd.testing.assert_frame_equal(rs.compare(*runs).metrics, first.metrics)

    def never(*_: object, **__: object) -> None:
        raise AssertionError("analysed again")

    monkeypatch.setattr("rankscope.analysis.analyze.analyze", never)
    second = rs.compare("flat", "falling", results=results)
    pd.testing.assert_frame_equal(first.metrics, second.metrics)
    assert {path: path.stat().st_mtime_ns for path in written} == written


def test_wrong_requests_say_what_there_is(study: Path) -> None:
    results = study / "results"
    with pytest.raises(WrongSettingError, match=r"'x' is not a run .* which hold falling, flat"):
        rs.compare("flat", "x", results=results)
    with pytest.raises(WrongSettingError, match="compared with itself"):
        rs.compare("flat", study / "ckpts" / "flat", results=results)
    with pytest.raises(WrongSettingError, match="nowhere: is not a folder"):
        rs.compare("nowhere", "falling")
    with pytest.raises(WrongSettingError, match="confidence is 95"):
        rs.compare("flat", "falling", confidence=95)
    with pytest.raises(WrongSettingError, match="error of 'outliers' is not known"):
        rs.compare("flat", "falling", results=results, columns=["outliers"])


def test_checkpoints_that_are_gone_cost_the_distances_alone(study: Path, tmp_path: Path) -> None:
    forget_digests(shutil.copytree(study / "results", tmp_path / "results"))
    record, gone = tmp_path / "results" / "analysis.json", tmp_path / "gone"
    record.write_text(record.read_text().replace(str(study / "ckpts"), str(gone)))
    found = rs.compare(gone / "flat", gone / "falling", results=tmp_path / "results")
    assert found.weights.empty
    assert len(found.metrics)
    assert "the weights are not compared" in found.notes[-1] and "not exist" in found.notes[-1]


def test_groups_of_runs_are_compared_by_their_seeds(study: Path, tmp_path: Path) -> None:
    """The runs of a group are those that the pattern puts together, whatever runs there are."""
    forget_digests(shutil.copytree(study / "results", tmp_path / "results"))
    table = pd.read_parquet(study / "results" / "metrics.parquet")
    seeds = [
        table.assign(run=table["run"] + f"-{seed}", per=table["per"] + 0.001 * seed)
        for seed in range(3)
    ]
    pd.concat(seeds).to_parquet(tmp_path / "results" / "metrics.parquet")
    settings = {"results": tmp_path / "results", "group": r"(.*)-\d", "columns": ["per"]}
    found = rs.compare("flat", "falling", **settings)
    rows = found.metrics
    assert (found.a, found.b) == ("flat", "falling")
    assert set(rows["runs_a"]) == set(rows["runs_b"]) == {3}
    last = rows[(rows["step_a"] == 20) & rows["layer"].isna()]
    assert last["differs"].all()
    # Three seeds at 0, 0.001 and 0.002 on either side: sd 0.001, and t with 4 degrees of freedom.
    np.testing.assert_allclose(rows["spread"], 2.776445 * 0.001 * np.sqrt(2 / 3), rtol=1e-6)
    assert found.weights.empty
    assert digest.sentences(found)[0].startswith(f"at the last step, {len(last)} of {len(last)} ")
    with pytest.raises(WrongSettingError, match="which hold falling, flat"):
        rs.compare("flat-0", "falling", **settings)
    with pytest.raises(WrongSettingError, match="`group` needs `results`"):
        rs.compare("flat", "falling", group="x")


@pytest.mark.slow
def test_two_adapters_on_one_base_are_compared(tmp_path: Path, rng: np.random.Generator) -> None:
    for name in ("code", "prose"):
        write_adapter(tmp_path / name, random_factors(rng), scale=1.0)
        config = tmp_path / name / "adapter_config.json"
        config.write_text(config.read_text()[:-1] + ', "base_model_name_or_path": "org/base"}')
    found = rs.compare(tmp_path / "code", tmp_path / "prose")
    assert set(found.weights["component"]) == {"adapter"}
    assert set(found.weights["measure"]) == {"cosine", "column_overlap", "row_overlap"}
    overlap = found.weights[found.weights["measure"].str.endswith("overlap")]
    assert overlap["value"].mean() == pytest.approx(overlap["null"].mean(), abs=0.05)
    assert set(found.metrics["component"]) == {"adapter"}


@pytest.mark.slow
def test_models_without_a_matrix_in_common_are_an_error(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    write_model(tmp_path / "a", random_weights(rng))
    write_adapter(tmp_path / "b", random_factors(rng), scale=1.0)
    with pytest.raises(RankscopeError, match="no matrix of one role, layer and shape in common"):
        rs.compare(tmp_path / "a", tmp_path / "b")


def test_a_table_is_a_table_in_latex_and_markdown() -> None:
    cells = [("a", "at|b"), ("50 % ± 1", "x_1 & ~")]
    latex = digest.as_latex(cells).splitlines()
    assert latex[0] == r"\begin{tabular}{ll}"
    assert latex[4] == r"50 \% $\pm$ 1 & x\_1 \& \textasciitilde{} \\"
    markdown = digest.as_markdown(cells).splitlines()
    assert markdown == [r"| a | at\|b |", "|---|---|", "| 50 % ± 1 | x_1 & ~ |"]
