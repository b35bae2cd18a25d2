"""Where cumulative updates begin: LoRA and full fine-tuning of one base compare."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

import rankscope as rs
from rankscope.analysis.analyzed import Analysis
from rankscope.analysis.question import Question
from rankscope.analysis.request import Selection
from rankscope.checkpoints.discovery import survey
from rankscope.errors import RankscopeError
from tests.analysis.series import (
    analysed,
    answered,
    effective_rank,
    renamed,
    singular_values,
    write_step,
)
from tests.conftest import (
    MODULES,
    RANK,
    Tensors,
    TinyRun,
    random_factors,
    random_weights,
    write_adapter,
    write_model,
)

CUMULATIVE = "cumulative_update"


class FineTunings:
    """A base model, a full and a LoRA fine-tuning of it, and what each adds at every step."""

    def __init__(self, path: Path, rng: np.random.Generator) -> None:
        self.base, self.full, self.lora = (
            path / "base",
            path / "runs" / "full",
            path / "runs" / "lora",
        )
        start = random_weights(rng)
        write_model(self.base, start)
        self.added: dict[tuple[str, int, str], np.ndarray] = {}
        for step in (50, 100):
            noise = random_weights(rng)
            tuned: Tensors = {name: start[name] + noise[name] / 8 for name in start}
            write_step(self.full, step, tuned)
            factors, folder = random_factors(rng), self.lora / f"checkpoint-{step}"
            write_adapter(folder, factors, scale=2.0)
            config = json.loads((folder / "adapter_config.json").read_text())
            config["base_model_name_or_path"] = "nowhere/base"
            (folder / "adapter_config.json").write_text(json.dumps(config))
            for module, (left, right) in factors.items():
                name = f"{module}.weight"
                self.added["full", step, name] = tuned[name].astype(np.float64) - start[name]
                self.added["lora", step, name] = 2.0 * left @ right


@pytest.fixture
def tunings(tmp_path: Path, rng: np.random.Generator) -> FineTunings:
    return FineTunings(tmp_path, rng)


def held_against_numpy(found: Analysis, tunings: FineTunings) -> set[tuple[str, int]]:
    """Hold every row to what numpy makes of the change; the runs and steps that have rows."""
    for row in found.rows:
        added = tunings.added[row["run"], row["step"], row["name"]]
        assert row["effective_rank"] == pytest.approx(effective_rank(added), rel=1e-6)
        assert row["spectral_norm"] == pytest.approx(singular_values(added)[0], rel=1e-6)
        assert row["max_rank"] == (RANK if row["run"] == "lora" else min(added.shape))
    assert len(found.rows) == len(MODULES) * len({(r["run"], r["step"]) for r in found.rows})
    return {(row["run"], row["step"]) for row in found.rows}


def test_since_a_base_full_and_low_rank_training_compare(tunings: FineTunings) -> None:
    runs = tunings.full.parent
    found = analysed(runs, CUMULATIVE, since=tunings.base, base=tunings.base)
    assert not found.skips
    assert held_against_numpy(found, tunings) == {
        (run, step) for run in ("full", "lora") for step in (50, 100)
    }


def test_an_adapter_is_measured_from_its_base_by_default(
    tunings: FineTunings,
) -> None:
    found = analysed(tunings.lora, CUMULATIVE, base=tunings.base)
    assert held_against_numpy(found, tunings) == {("lora", 50), ("lora", 100)}
    assert [note.message for note in found.notes] == [
        f"its cumulative updates begin at its base model, {tunings.base}"
    ]
    rows = analysed(tunings.full, CUMULATIVE).rows
    assert {row["step"] for row in rows} == {100}
    for row in rows:
        key = row["name"]
        since_first = tunings.added["full", 100, key] - tunings.added["full", 50, key]
        assert row["effective_rank"] == pytest.approx(effective_rank(since_first), rel=1e-6)


def test_the_base_may_have_other_names_by_a_prefix(
    tunings: FineTunings, rng: np.random.Generator, tmp_path: Path
) -> None:
    bare = {n.removeprefix("model."): t for n, t in random_weights(rng).items()}
    bare.pop("lm_head.weight")
    run = tmp_path / "wrapped"
    for step in (1, 2):
        write_step(run, step, renamed({n: t * (1 + step) for n, t in bare.items()}, "model."))
    write_model(tmp_path / "bare", bare)
    found = analysed(run, CUMULATIVE, since=tmp_path / "bare")
    assert not found.skips and len(found.rows) == 2 * len(MODULES)
    for row in found.rows:
        expected = row["step"] * bare[row["name"].removeprefix("model.")].astype(np.float64)
        assert row["spectral_norm"] == pytest.approx(singular_values(expected)[0], rel=1e-6)


def test_another_model_is_no_start(
    tunings: FineTunings, tmp_path: Path, rng: np.random.Generator
) -> None:
    save_file({"a.weight": np.ones((4, 4), np.float32)}, tmp_path / "other.safetensors")
    found = analysed(tunings.full, CUMULATIVE, "weight", since=tmp_path / "other.safetensors")
    (skip,) = found.skips
    assert skip.reason == "other-origin" and "other names" in skip.message
    assert not [row for row in found.rows if row["component"] == CUMULATIVE]


def test_a_start_that_is_not_one_checkpoint_is_refused(
    tunings: FineTunings,
) -> None:
    with pytest.raises(RankscopeError, match="does not exist"):
        analysed(tunings.full, CUMULATIVE, since=tunings.base / "absent")
    with pytest.raises(RankscopeError, match="holds 2 checkpoints"):
        analysed(tunings.full, CUMULATIVE, since=tunings.full)


def test_a_step_of_the_run_is_a_start_for_later_ones(tunings: FineTunings) -> None:
    write_step(tunings.full, 150, random_weights(np.random.default_rng(1)))
    found = analysed(tunings.full, CUMULATIVE, since=tunings.full / "checkpoint-100")
    assert {row["step"] for row in found.rows} == {150}


def test_merges_since_a_start_outside_the_run_all_count(
    relora_run: TinyRun, tmp_path: Path
) -> None:
    write_model(tmp_path / "start", relora_run.weights[0])
    apart = analysed(relora_run.path, CUMULATIVE, since=tmp_path / "start")
    within = analysed(relora_run.path, CUMULATIVE)
    assert {row["step"] for row in apart.rows} == {0, 10, 20, 30}
    floors = [
        {r["name"]: r["noise_floor"] for r in found.rows if r["step"] == 30}
        for found in (apart, within)
    ]
    assert floors[0] == pytest.approx(floors[1], rel=1e-9)


def test_a_start_is_asked_for_with_cumulative_updates(tunings: FineTunings) -> None:
    table = rs.analyze(tunings.full, since=tunings.base, roles=["q"], layers=[0])
    assert set(table["component"]) == {"weight", "update", CUMULATIVE}
    with pytest.raises(RankscopeError, match="not among the `components`"):
        rs.analyze(tunings.full, components=["weight"], since=tunings.base)


def test_one_folder_of_results_keeps_two_starts_apart(tunings: FineTunings, tmp_path: Path) -> None:
    out, first = tmp_path / "out", tunings.full / "checkpoint-50"
    shutil.copytree(first, tmp_path / "first")
    rows = []
    for since in (tunings.base, tmp_path / "first", tunings.base):
        asked = Question(paths=(tunings.full,), components=CUMULATIVE, since=since)
        found = answered(asked, out)
        rows.append([(r["step"], r["name"], r["effective_rank"], r["status"]) for r in found.rows])
    assert rows[0] == rows[2] != rows[1]
    table = rs.open_results(out).metrics
    assert [tuple(r) for r in table[["step", "name"]].to_numpy().tolist()] == [
        r[:2] for r in rows[2]
    ]
    assert asked.recalled(out) is not None
    shutil.copytree(tunings.base, tmp_path / "copy")  # the record names the start
    for other in (None, tmp_path / "copy"):
        assert replace(asked, since=other).recalled(out) is None


def test_results_with_and_without_a_base_are_kept_apart(
    tunings: FineTunings, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    alone = analysed(tunings.lora, out=out)
    assert "adapter" in {row["component"] for row in alone.rows}
    assert "weight" not in {row["component"] for row in alone.rows}
    based = analysed(tunings.lora, out=out, base=tunings.base)
    assert {"weight", "update", "adapter"} <= {row["component"] for row in based.rows}
    again = analysed(tunings.lora, out=out)
    assert again.rows == alone.rows
    assert "weight" not in set(rs.open_results(out).metrics["component"])


def test_a_component_that_is_not_there_is_explained(tunings: FineTunings, tmp_path: Path) -> None:
    found = analysed(tunings.lora, "weight", "ov")
    assert not found.rows
    messages = [note.message for note in found.notes]
    assert sum("'nowhere/base'" in message for message in messages) == 1
    why = "its adapters stand alone: the weights that they change are not found"
    assert f"has no weight: {why}" in messages and f"has no ov: {why}" in messages
    single = analysed(tunings.full / "checkpoint-50", "weight", "update", "gradient", "merge")
    assert [note.reason for note in single.notes] == ["no-update", "no-gradient", "no-merge"]
    assert "has one checkpoint" in single.notes[0].message
    with pytest.warns(UserWarning, match="nothing was measured: .*stand alone"):
        rs.analyze(tunings.lora, components=["weight"])
    layers = analysed_with(tunings.full, Selection.of(layers=[9]))
    assert "layers and roles" in layers.notes[0].message


def test_what_cannot_be_read_gets_one_line(tunings: FineTunings, tmp_path: Path) -> None:
    """Once it is said why nothing could be read, a line that no weight was found adds nothing."""
    cut = tmp_path / "cut" / "model.safetensors"
    cut.parent.mkdir()
    cut.write_bytes((tunings.base / "model.safetensors").read_bytes()[:-100])
    for asked in ((), ("weight", "update", "gradient", "ov")):
        found = analysed(cut, *asked)
        assert ([one.reason for one in found.skips], found.notes) == (["cut-short"], ())
    with pytest.warns(UserWarning) as warned:
        rs.analyze(cut)
    assert len(warned) == 1 and "is cut short" in str(warned[0].message)
    (note,) = analysed(cut, "weight", "merge").notes  # of which the file would say nothing
    assert note.message == "has no merge: it keeps no record of merges"


def analysed_with(path: Path, selection: Selection) -> Analysis:
    from rankscope.analysis.analyze import analyze_runs
    from tests.analysis.series import Inline

    return analyze_runs(survey([path]), selection, engine=Inline())


@pytest.mark.parametrize("place", ["runs/lora/base", "base"])
def test_a_base_that_a_link_leads_out_of_is_no_start(
    tunings: FineTunings, tmp_path: Path, place: str
) -> None:
    """As named by the adapters; a folder that was given may itself be a link."""
    base = tmp_path / place
    base.parent.mkdir(parents=True, exist_ok=True)
    shutil.move(tunings.base, tmp_path / "elsewhere")
    base.mkdir()
    for name in ("model.safetensors", "config.json"):
        (base / name).symlink_to(tmp_path / "elsewhere" / name)
    for config in tunings.lora.glob("*/adapter_config.json"):
        stated = json.loads(config.read_text()) | {"base_model_name_or_path": str(base)}
        config.write_text(json.dumps(stated))
    assert "outside" in {skip.reason for skip in analysed(tunings.lora, CUMULATIVE).skips}
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    found = analysed(tunings.lora, CUMULATIVE, base=tmp_path / "link")
    assert held_against_numpy(found, tunings) == {("lora", 50), ("lora", 100)}
