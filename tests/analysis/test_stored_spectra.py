"""Laws of the store under an analysis: what is damaged or missing there never becomes a number."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import rankscope as rs
from rankscope.analysis.analyze import analyze_runs
from rankscope.analysis.analyzed import Analysis
from rankscope.analysis.local_workers import LocalWorkers
from rankscope.analysis.question import Question
from rankscope.analysis.request import Selection
from rankscope.checkpoints.discovery import survey
from rankscope.errors import RankscopeError
from rankscope.results.spectra_store import read_entries
from tests.analysis.series import Inline, analysed, answered, weights, write_step
from tests.conftest import TinyRun, forget_digests


@pytest.fixture
def run(tmp_path: Path, rng: np.random.Generator) -> Path:
    """Write a series of two steps."""
    for step in (1, 2):
        write_step(tmp_path / "run", step, weights(rng))
    return tmp_path / "run"


def stored(out: Path, step: int) -> Path:
    return next((out / "spectra").glob(f"*/step-{step:08d}.safetensors"))


def bytes_of(out: Path) -> dict[str, bytes]:
    paths = [*out.glob("spectra/*/*"), out / "metrics.csv", out / "metrics.parquet"]
    return {str(path.relative_to(out)): path.read_bytes() for path in paths}


def again(path: Path, out: Path, *, shuffled: int | None = None, jobs: int = 1) -> Analysis:
    engine = LocalWorkers(jobs) if shuffled is None else Shuffled(shuffled)
    return analyze_runs(survey([path]), Selection(), out=out, engine=engine)


class Shuffled(Inline):
    """Hands out what it found in another order."""

    def __init__(self, seed: int) -> None:
        self._rng = np.random.default_rng(seed)

    def run(self, jobs):  # type: ignore[no-untyped-def]
        found = list(super().run(jobs))
        yield from (found[i] for i in self._rng.permutation(len(found)))


@pytest.mark.slow
def test_a_flipped_bit_in_the_store_costs_no_number(
    run: Path, tmp_path: Path, rng: np.random.Generator
) -> None:
    out = tmp_path / "out"
    first = analysed(run, out=out)
    good = bytes_of(out)
    path = stored(out, 2)
    content = path.read_bytes()
    for place in rng.integers(len(content), size=60):
        changed = bytearray(content)
        changed[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(changed)
        found = analysed(run, out=out)
        (line,) = found.mended
        assert str(path) in str(line) and "damaged" in str(line) and "recomputed" in str(line)
        assert found.rows == first.rows
        assert found.computed == sum(row["step"] == 2 for row in first.rows)
        assert bytes_of(out) == good
    assert not analysed(run, out=out).mended


@pytest.mark.slow
def test_neither_engine_nor_order_changes_the_store(relora_run: TinyRun, tmp_path: Path) -> None:
    again(relora_run.path, tmp_path / "one", jobs=1)
    expected = bytes_of(tmp_path / "one")
    assert len(expected) == 6
    again(relora_run.path, tmp_path / "three", jobs=3)
    assert bytes_of(tmp_path / "three") == expected
    for seed in (0, 1):
        again(relora_run.path, tmp_path / str(seed), shuffled=seed)
        assert bytes_of(tmp_path / str(seed)) == expected


@pytest.mark.slow
def test_the_order_of_questions_does_not_change_the_store(
    relora_run: TinyRun, tmp_path: Path
) -> None:
    again(relora_run.path, tmp_path / "at once")
    for components in (["ov"], ["update", "gradient"], None):
        rs.analyze(relora_run.path, out=tmp_path / "parts", components=components)
    assert bytes_of(tmp_path / "parts") == bytes_of(tmp_path / "at once")


def test_a_stored_file_that_was_removed_is_written_again(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    question = Question(paths=(run,))
    answered(question, out)
    assert question.recalled(out) is not None
    stored(out, 1).unlink()
    assert question.recalled(out) is None
    answered(question, out)
    assert stored(out, 1).is_file()


def test_figures_of_a_damaged_file_say_what_to_do(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    analysed(run, out=out)
    content = bytearray(stored(out, 1).read_bytes())
    content[-1] ^= 1
    stored(out, 1).write_bytes(content)
    with pytest.raises(RankscopeError, match=r"is damaged .*: remove it, and"):
        rs.open_results(out).spectra("weight")


def test_spectra_are_those_of_the_table(relora_run: TinyRun, tmp_path: Path) -> None:
    """What an earlier call left in the store may be of files that changed since."""
    rs.analyze(relora_run.path, out=tmp_path, components="weight,ov", jobs=1)
    whole = rs.open_results(tmp_path).spectra("ov")
    assert set(whole["layer"]) == {0, 1} and whole["head"].nunique() > 1
    table = rs.analyze(
        relora_run.path, out=tmp_path, components="weight", layers=1, roles="q,v", jobs=1
    )
    spectra = rs.open_results(tmp_path).spectra("weight")
    for column in ("step", "layer", "role"):
        assert set(spectra[column]) == set(table[column])


def test_a_matrix_that_can_no_longer_be_read_has_no_spectrum(run: Path, tmp_path: Path) -> None:
    rs.analyze(run, out=tmp_path, components="weight", jobs=1)
    assert set(rs.open_results(tmp_path).spectra("weight")["step"]) == {1, 2}
    rows = pd.read_parquet(tmp_path / "metrics.parquet")
    rows.loc[rows["step"] == 2, "status"] = "skipped:damaged"  # a failure is not stored
    rows.to_parquet(tmp_path / "metrics.parquet")
    forget_digests(tmp_path)
    assert set(rs.open_results(tmp_path).spectra("weight")["step"]) == {1}


def test_heads_that_another_config_replaced_are_not_missing_under_the_first_one(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    """The heads that are left of a matrix would pass for all of them."""
    shapes = {f"layers.0.self_attn.{one}_proj": (16, 16) for one in "vo"}
    write_step(tmp_path / "run", 1, weights(rng, shapes))
    config = next((tmp_path / "run").rglob("config.json"))
    counts = []
    for heads in (4, 2, 4):
        about = {
            "num_attention_heads": heads,
            "num_key_value_heads": heads,
            "head_dim": 16 // heads,
        }
        config.write_text(json.dumps(json.loads(config.read_text()) | about))
        counts.append(len(analysed(tmp_path / "run", "ov", out=tmp_path / "out").table))
    assert counts == [4, 2, 4]


def test_calls_in_turns_for_other_steps_lose_nothing_of_each_other(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    for step in (1, 2, 3):
        write_step(tmp_path / "run", step, weights(rng))
    out = tmp_path / "out"
    asked = {"1:3:2": {1}, "1:3:1": {1, 2}, "2:3:1": {2}}  # and where the change to step 3 begins
    calls = {
        steps: Question(paths=(tmp_path / "run",), components="update", steps=steps)
        for steps in asked
    }
    tables = {}
    for steps, call in calls.items():
        assert answered(call, out).computed
        tables[steps] = (out / "metrics.csv").read_bytes()
    for steps, call in calls.items():
        assert answered(call, out).computed == 0
        assert (out / "metrics.csv").read_bytes() == tables[steps]
        results = rs.open_results(out)
        since = results.metrics.set_index(["name", "step"])["since"]
        assert {*since.xs(3, level="step")} <= asked[steps]
        spectra = results.spectra(component="update")
        assert len(spectra) == 16 * len(results.metrics)  # one spectrum a row, of its own window
        first = spectra[(spectra["step"] == 3) & (spectra["index"] == 0)]
        norms = results.metrics[results.metrics["step"] == 3].set_index("name")["spectral_norm"]
        assert dict(zip(first["name"], first["singular_value"], strict=True)) == norms.to_dict()


def test_a_checkpoint_that_was_written_anew_replaces_what_was_stored_of_it(
    run: Path, tmp_path: Path, rng: np.random.Generator
) -> None:
    out = tmp_path / "out"
    question = Question(paths=(run,))
    answered(question, out)
    before = len(read_entries(stored(out, 2)))
    write_step(run, 2, weights(rng))
    assert answered(question, out).computed == before
    assert len(read_entries(stored(out, 2))) == before


@pytest.mark.parametrize("last", ["1:3:1", "2:3:1"])
def test_rows_have_their_own_spectra_after_a_rewrite_between_calls_for_other_steps(
    tmp_path: Path, rng: np.random.Generator, last: str
) -> None:
    """Both calls measure the change from step 2 to 3; only one knows the change before it."""
    for step in (1, 2, 3):
        write_step(tmp_path / "run", step, weights(rng))
    out = tmp_path / "out"
    calls = {
        steps: Question(paths=(tmp_path / "run",), components="update", steps=steps)
        for steps in ("1:3:1", "2:3:1")
    }
    for call in calls.values():
        answered(call, out)
    write_step(tmp_path / "run", 3, weights(rng))
    answered(calls[last], out)
    results = rs.open_results(out)
    spectra = results.spectra(component="update")
    assert len(spectra) == 16 * len(results.metrics)
    first = spectra[(spectra["step"] == 3) & (spectra["index"] == 0)]
    norms = results.metrics[results.metrics["step"] == 3].set_index("name")["spectral_norm"]
    assert dict(zip(first["name"], first["singular_value"], strict=True)) == norms.to_dict()


def test_spectra_say_of_which_expert_they_are(tmp_path: Path, rng: np.random.Generator) -> None:
    matrices = {"gate": (3, 5), "down": (5, 3)}
    tensors = {
        f"model.layers.0.mlp.experts.{expert}.{role}_proj.weight": rng.normal(size=shape)
        for expert in range(2)
        for role, shape in matrices.items()
    }
    write_step(tmp_path / "run", 1, tensors)
    rs.analyze(tmp_path / "run", out=tmp_path / "out", components=["weight"], jobs=1)
    results = rs.open_results(tmp_path / "out")
    found = results.spectra("weight", role=["gate", "down"])
    for (expert, role), one in found.groupby(["expert", "role"]):
        tensor = tensors[f"model.layers.0.mlp.experts.{expert}.{role}_proj.weight"]
        values = np.linalg.svd(tensor, compute_uv=False)
        np.testing.assert_allclose(one["singular_value"], values, rtol=1e-6)
    assert len(found) == 2 * 2 * 3
    gates = results.spectra("weight", role="gate")
    pd.testing.assert_frame_equal(gates, found[found["role"] == "gate"].reset_index(drop=True))
    legend = rs.plots.spectrum(gates).get_legend()
    assert "median over experts" in {text.get_text() for text in legend.get_texts()}
