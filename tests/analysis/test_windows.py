"""What a change is measured over: the columns since, restarts and window, and whole cycles only."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load_file, save_file

import rankscope as rs
from rankscope.checkpoints.merges import Merge, Merges
from rankscope.components.windows import Window
from rankscope.errors import RankscopeError, RankscopeWarning
from tests.analysis.series import analysed
from tests.conftest import (
    RANK,
    TinyRun,
    forget_digests,
    random_factors,
    random_weights,
    write_adapter,
    write_model,
)
from tests.reliability.commands import finished_command as rankscope

CHANGES = ["update", "cumulative_update", "ov_update", "merge"]
ADAPTED = frozenset({"q"}), frozenset({"q"})


def merges(*steps: int, module: str = "q") -> Merges:
    return Merges(tuple(Merge(step, Path(), {module: None}) for step in steps))  # type: ignore[dict-item]


@pytest.mark.parametrize(
    ("since", "step", "restarts", "kind"),
    [
        (0, 10, 0, "cycle"),  # the first begins with the training
        (10, 20, 0, "cycle"),
        (0, 5, 0, "within"),
        (5, 10, 0, "within"),
        (10, 15, 0, "within"),
        (12, 18, 0, "within"),
        (20, 25, 0, "within"),  # after the last merge
        (5, 15, 1, "across"),
        (0, 20, 1, "across"),  # two whole cycles are not one
        (5, 25, 2, "across"),
    ],
)
def test_a_window_is_within_or_of_a_cycle_or_across(
    since: int, step: int, restarts: int, kind: str
) -> None:
    window = Window(since, step, merges(10, 20), adapted=ADAPTED)
    assert (window.restarts("q"), window.kind("q")) == (restarts, kind)


def test_a_module_that_no_merge_touched_knows_no_cycles() -> None:
    window = Window(5, 15, merges(10), adapted=ADAPTED)
    assert (window.merged("k"), window.restarts("k"), window.kind("k")) == (0, 0, "")
    assert (window.merged("q"), window.restarts("k", "q"), window.kind("k", "q")) == (
        1,
        1,
        "across",
    )


@pytest.mark.parametrize(
    ("since", "step", "kind"),
    [(0, 10, "cycle"), (10, 20, "cycle"), (15, 20, "within"), (10, 25, "across")],
)
@pytest.mark.parametrize("read", [0, 1])
def test_a_merge_that_cannot_be_read_ends_a_cycle_all_the_same(
    since: int, step: int, kind: str, read: int
) -> None:
    known = Merges(merges(10, 20).read[:read], (10, 20)[read:])
    window = Window(since, step, known, adapted=ADAPTED)
    assert window.kind("q") == kind
    assert window.restarts("q") == (kind == "across")
    assert window.merged("q") == len([at for at in (10, 20) if since <= at < step])
    assert window.kind("v") == ""  # has no adapter


def test_full_training_before_adapters_is_outside_cycles() -> None:
    none, now = frozenset[str](), frozenset({"q"})
    assert Window(0, 5, merges(10, 20), adapted=(none, none)).kind("q") == ""
    assert Window(0, 10, merges(10, 20), adapted=(none, now)).kind("q") == "across"
    assert Window(5, 8, merges(10, 20), adapted=(none, now)).kind("q") == "across"


def test_where_restarts_are_only_counted_no_cycle_is_called_whole() -> None:
    assert Window(5, 15, counted=0, adapted=ADAPTED).kind("q") == "within"
    assert Window(5, 15, counted=2, adapted=ADAPTED).kind("q") == "across"
    assert Window(5, 15, counted=2, adapted=ADAPTED).restarts("q") == 2
    assert Window(5, 15, counted=2, adapted=ADAPTED).kind("k") == ""
    assert Window(5, 15, adapted=ADAPTED).kind("q") == ""  # LoRA, or nothing says


def halfway(run: TinyRun, step: int) -> None:
    """A checkpoint within a cycle: the frozen weights of the next one, and other factors."""
    following = min(later for later in run.weights if later > step)
    folder = run.path / "checkpoints" / f"step-{step:08d}"
    write_model(folder, run.weights[following])
    factors = random_factors(np.random.default_rng(step))
    write_adapter(folder / "adapter", factors, scale=run.scale)
    (folder / "state.json").write_text(json.dumps({"step": step}))


@pytest.mark.slow
def test_every_change_has_its_window_in_the_table(relora_run: TinyRun, tmp_path: Path) -> None:
    halfway(relora_run, 15)
    table = rs.analyze(relora_run.path, components=[*CHANGES, "weight"], out=tmp_path / "out")
    found = table.groupby(["component", "step"])[["since", "restarts", "window"]].agg(set)

    def windows(component: str) -> list[tuple[object, ...]]:
        rows = found.loc[component].reset_index()
        return [
            tuple(next(iter(values)) if len(values) == 1 else values for values in row)
            for row in rows[["since", "step", "restarts", "window"]].assign(
                step=[{s} for s in rows["step"]]
            ).itertuples(index=False)
        ]  # fmt: skip

    assert windows("update") == windows("ov_update") == [
        (0, 10, 0, "cycle"), (10, 15, 0, "within"), (15, 20, 0, "within"), (20, 30, 0, "within"),
    ]  # fmt: skip
    assert windows("cumulative_update")[-1] == (0, 30, 2, "across")
    merged = table[table["component"] == "merge"].set_index("step")
    assert merged.loc[10, "since"].isna().all() and (merged.loc[20, "since"] == 10).all()
    assert (merged["window"] == "cycle").all()
    weights = table[table["component"] == "weight"]
    assert weights[["since", "restarts"]].isna().all().all() and (weights["window"] == "").all()
    again = rs.open_results(tmp_path / "out").metrics
    assert (again["since"].fillna(-1) == table["since"].fillna(-1)).all()


def test_a_part_of_a_cycle_has_twice_the_rank(
    relora_run: TinyRun,
) -> None:
    halfway(relora_run, 15)
    table = rs.analyze(relora_run.path, components=["update"], roles=["up"]).set_index("step")
    ranks = table.groupby("step")["numerical_rank"].max()
    assert ranks[10] == RANK and ranks[15] == RANK and ranks[20] == 2 * RANK


def test_whole_cycles_alone_are_measured_where_they_are_asked_for(relora_run: TinyRun) -> None:
    halfway(relora_run, 15)
    table = rs.analyze(relora_run.path, components=["update", "weight"], windows="cycles")
    updates = table[table["component"] == "update"]
    assert set(updates["window"]) == {"cycle"}
    assert set(zip(updates["since"], updates["step"], strict=True)) == {(0, 10), (10, 20)}
    assert (updates["numerical_rank"] == RANK).all()
    assert set(table.loc[table["component"] == "weight", "step"]) == {0, 10, 15, 20, 30}


def test_a_run_without_restarts_has_steps_for_cycles(
    full_run: Path,
) -> None:
    table = rs.analyze(full_run, components=["update"], windows="cycles")
    assert set(zip(table["since"], table["step"], strict=True)) == {(5, 10), (10, 100)}
    assert (table["window"] == "").all() and (table["restarts"] == 0).all()


def test_it_is_said_that_no_whole_cycle_lies_between_checkpoints(relora_run: TinyRun) -> None:
    with pytest.warns(UserWarning, match="no two checkpoints are at restarts"):
        rs.analyze(
            relora_run.path, components=["weight", "update"], steps=(20, None, 1), windows="cycles"
        )


def test_a_component_without_whole_cycles_is_explained(relora_run: TinyRun) -> None:
    found = analysed(relora_run.path, "update", "weight", windows="cycles", steps=(20, None, 1))
    (note,) = [one for one in found.notes if one.reason == "no-update"]
    assert "enclose a whole cycle" in note.message
    assert [skip.reason for skip in found.skips] == ["no-cycles"]


@pytest.mark.slow
def test_the_command_measures_whole_cycles(relora_run: TinyRun, tmp_path: Path) -> None:
    halfway(relora_run, 15)
    given = ["analyze", str(relora_run.path), "--out", str(tmp_path), "--components", "update"]
    assert rankscope(*given, "--jobs", "1", "--windows", "cycles").returncode == 0
    table = rs.open_results(tmp_path).metrics
    assert set(table["window"]) == {"cycle"} and set(table["step"]) == {10, 20}
    record = json.loads((tmp_path / "analysis.json").read_text())
    assert record["options"]["windows"] == "cycles"
    assert rankscope(*given, "--jobs", "1").returncode == 0  # another question, another answer
    assert set(rs.open_results(tmp_path).metrics["step"]) == {10, 15, 20, 30}
    assert rankscope(*given, "--windows", "epochs").returncode == 2


def test_a_change_since_a_base_model_is_since_no_step(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    write_model(tmp_path / "base", random_weights(rng))
    for step in (50, 100):
        write_adapter(tmp_path / "run" / f"checkpoint-{step}", random_factors(rng), scale=2.0)
    table = rs.analyze(
        tmp_path / "run", base=tmp_path / "base", components=["update", "cumulative_update"]
    )
    whole = table[table["component"] == "cumulative_update"]
    assert set(whole["step"]) == {50, 100} and whole["since"].isna().all()
    assert (whole["restarts"] == 0).all() and (whole["max_rank"] == RANK).all()
    assert (whole["relative_size"] > 0).all()
    updates = table[table["component"] == "update"]
    assert (updates["since"] == 50).all() and (updates["max_rank"] == 2 * RANK).all()


def test_whole_cycles_span_a_checkpoint_that_cannot_be_read(relora_run: TinyRun) -> None:
    halfway(relora_run, 15)
    for step in (10, 15):
        folder = relora_run.path / "checkpoints" / f"step-{step:08d}"
        (folder / "model.safetensors").write_bytes(b"damaged")
    with pytest.warns(UserWarning):
        table = rs.analyze(relora_run.path, components=["update"], windows="cycles")
    spans = set(zip(table["since"], table["step"], table["window"], strict=True))
    assert spans == {(0, 20, "across")}  # two cycles, and called so


def test_an_unknown_kind_of_window_is_refused(relora_run: TinyRun) -> None:
    with pytest.raises(RankscopeError, match=r"choose from steps, cycles"):
        rs.analyze(relora_run.path, windows="epochs")  # type: ignore[arg-type]


def test_merges_are_counted_for_the_modules_that_they_touched(relora_run: TinyRun) -> None:
    # A module trained in full beside the adapters is stored twice, however many merges there were.
    lone, other = "model.layers.0.mlp.up_proj", "model.layers.1.mlp.up_proj"
    for folder in (relora_run.path / "checkpoints").iterdir():
        path = folder / "adapter" / "adapter_model.safetensors"
        save_file({k: v for k, v in load_file(path).items() if lone not in k}, path)
    for path in (relora_run.path / "merges").iterdir():
        save_file({k: v for k, v in load_file(path).items() if lone not in k}, path)
    table = rs.analyze(relora_run.path, components=["cumulative_update"], roles=["up"])
    floors = table[table["step"] == 30].set_index("name")["noise_floor"]
    values = {
        name: [run[f"{name}.weight"] for run in (relora_run.weights[0], relora_run.weights[30])]
        for name in (lone, other)
    }

    def edge(arrays: list[np.ndarray], times: list[int]) -> float:
        variance = sum(
            t * (np.exp2(np.frexp(a)[1] - 24.0)) ** 2 / 12
            for a, t in zip(arrays, times, strict=True)
        )
        return 1.5 * (np.sqrt(variance.sum(axis=1).max()) + np.sqrt(variance.sum(axis=0).max()))

    assert floors[f"{lone}.weight"] == pytest.approx(edge(values[lone], [1, 1]), rel=1e-5)
    assert floors[f"{other}.weight"] >= edge(values[other], [1, 2]) * 0.99999


@pytest.mark.slow
def test_results_of_version_1_are_read(relora_run: TinyRun, tmp_path: Path) -> None:
    rs.analyze(relora_run.path, components=["update"], out=tmp_path)
    path, added = tmp_path / "metrics.parquet", ["since", "window", "per_resolved", "relative_size"]
    now = rs.open_results(tmp_path).metrics
    pd.read_parquet(path).drop(columns=added).to_parquet(path)
    forget_digests(tmp_path)
    with pytest.warns(RankscopeWarning, match="an older version wrote this table"):
        found = rs.open_results(tmp_path).metrics
    assert list(found.columns) == list(now.columns)
    assert found[["since", "window"]].isna().all().all()  # the store cannot say them
    for column in ("per", "per_resolved", "relative_size"):
        pd.testing.assert_series_equal(found[column], now[column])
