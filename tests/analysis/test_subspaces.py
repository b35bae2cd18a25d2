"""Subspaces over the steps of a run, from checkpoints on disk to the table."""

import shutil
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load_file, save_file

import rankscope as rs
from rankscope.analysis import subspace_plans
from rankscope.analysis.subspace_series import Position, SubspaceSeries
from rankscope.checkpoints.contents import Adapter, KroneckerAdapter
from rankscope.checkpoints.files.safetensors_file import open_tensors
from rankscope.checkpoints.tensors import Tensor
from rankscope.components.deltas import Rescaling
from rankscope.components.recipes import Products, Recipe
from rankscope.errors import WrongSettingError
from rankscope.results.subspace_store import read_comparisons
from rankscope.spectra.matrices import Decomposable, Dense
from tests.conftest import RANK, TinyRun, random_weights, write_model

NAME = "model.layers.0.mlp.up_proj.weight"


def subspaces(path: Path, out: Path, **options: object) -> pd.DataFrame:
    settings = {"components": "weight,adapter,merge", "roles": "up", "jobs": 1} | options
    rs.analyze(path, out=out, subspaces=4, **settings)  # type: ignore[arg-type]
    return rs.open_results(out).subspaces


@pytest.fixture
def drifting(tmp_path: Path) -> Path:
    """Weights that drift, at steps 0 to 50."""
    rng = np.random.default_rng(8)
    weights = random_weights(rng)
    for step in range(0, 60, 10):
        write_model(tmp_path / "run" / f"checkpoint-{step}", weights)
        weights = {
            name: (w + 0.05 * rng.normal(size=w.shape)).astype(np.float32)
            for name, w in weights.items()
        }
    return tmp_path / "run"


def stored(run: Path, step: int) -> np.ndarray:
    return load_file(run / f"checkpoint-{step}" / "model.safetensors")[NAME].astype(np.float64)


@pytest.mark.parametrize(("step", "against"), [(30, 20), (30, 0), (10, 0)])
@pytest.mark.slow
def test_the_table_has_what_plain_decompositions_of_the_files_give(
    drifting: Path, tmp_path: Path, step: int, against: int
) -> None:
    table = subspaces(drifting, tmp_path / "out", components="weight").query(
        "step == @step and against == @against and name == @NAME"
    )
    now, before = stored(drifting, step), stored(drifting, against)
    (u, _, vt), (u0, _, vt0) = np.linalg.svd(now), np.linalg.svd(before)
    pairs = {"left": (u, u0, now - before), "right": (vt.T, vt0.T, (now - before).T)}
    for side, (new, old, change) in pairs.items():
        for k in (1, 4):
            rows = table[(table["side"] == side) & (table["k"] == k)].set_index("measure")
            overlap, energy = rows.loc["overlap"], rows.loc["update_energy"]
            truth = ((new[:, :k].T @ old[:, :k]) ** 2).sum() / k
            assert abs(overlap["value"] - truth) <= overlap["error"] + 1e-12
            inside = ((old[:, :k].T @ change) ** 2).sum() / (change**2).sum()
            assert abs(energy["value"] - inside) <= energy["error"] + 1e-12
            assert energy["null"] == k / len(new)
    assert set(table["component"]) == {"weight"} and set(table["layer"]) == {0}


@pytest.mark.slow
def test_every_step_is_held_against_the_one_before_and_the_first(
    drifting: Path, tmp_path: Path
) -> None:
    table = subspaces(drifting, tmp_path / "out", components="weight")
    pairs = set(zip(table["step"], table["against"], strict=True))
    before = {(step, step - 10) for step in range(10, 60, 10)}
    assert pairs == before | {(step, 0) for step in range(10, 60, 10)}


@pytest.mark.parametrize("against", ["last", "previous", ("first", "last"), "last,previous,first"])
@pytest.mark.parametrize("segment", [2, 8])
@pytest.mark.slow
def test_every_step_is_compared_with_those_that_are_asked_for(
    drifting: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    against: str | tuple[str, ...],
    segment: int,
) -> None:
    monkeypatch.setattr(subspace_plans, "SEGMENT", segment)
    table = subspaces(drifting, tmp_path / "out", components="weight", against=against)
    steps, expected = range(0, 60, 10), set()
    for step in steps:
        expected |= {(step, step - 10)} if "previous" in against and step else set()
        expected |= {(step, 0)} if "first" in against and step else set()
        expected |= {(step, 50)} if "last" in against and step != 50 else set()
    pairs = table[["step", "against"]].drop_duplicates()
    assert set(pairs.itertuples(index=False, name=None)) == expected
    assert not table.duplicated(["name", "step", "against", "measure", "side", "k"]).any()


@pytest.mark.slow
def test_a_call_gets_the_comparisons_that_it_asks_for_whatever_is_stored(
    drifting: Path, tmp_path: Path
) -> None:
    for against in ("first", "previous", "first,previous"):
        asked = {"components": "weight", "layers": 0, "steps": "0:20", "against": against}
        table = subspaces(drifting, tmp_path, **asked)
        pairs = set(zip(table["step"], table["against"], strict=True))
        both = {"first": {(10, 0), (20, 0)}, "previous": {(10, 0), (20, 10)}}
        assert pairs == set.union(*(both[name] for name in against.split(",")))


@pytest.mark.slow
@pytest.mark.parametrize("between", ["previous", "last"])
def test_what_another_call_replaced_is_not_missing_from_the_next_one(
    drifting: Path, tmp_path: Path, between: str
) -> None:
    asked = {"components": "weight", "layers": 0, "steps": "0:20"}
    before = subspaces(drifting, tmp_path, **asked, against="first,previous,last")
    subspaces(drifting, tmp_path, **asked, against=between)
    after = subspaces(drifting, tmp_path, **asked, against="first,previous,last")
    pd.testing.assert_frame_equal(after, before)


def test_a_matrix_is_not_compared_with_what_it_was_in_another_shape(
    drifting: Path, tmp_path: Path
) -> None:
    for step in (20, 30):
        path = drifting / f"checkpoint-{step}" / "model.safetensors"
        tensors = load_file(path)
        save_file(tensors | {NAME: np.append(tensors[NAME], tensors[NAME][:3], axis=0)}, path)
    table = subspaces(drifting, tmp_path / "out", components="weight", layers=0)
    pairs = set(zip(table["step"], table["against"], strict=True))
    assert pairs == {(10, 0), (30, 20), (50, 40)}


@pytest.mark.slow
def test_what_was_compared_with_the_last_step_follows_a_new_one(
    drifting: Path, tmp_path: Path
) -> None:
    last, out = drifting / "checkpoint-50", tmp_path / "out"
    aside = shutil.move(last, tmp_path / "aside")
    asked = {"components": "weight", "against": "previous,last"}
    early = subspaces(drifting, out, **asked)
    assert set(early.query("against > step")["against"]) == {40}
    shutil.move(aside, last)
    late = subspaces(drifting, out, **asked)
    assert set(late.query("against > step")["against"]) == {50}
    pd.testing.assert_frame_equal(late, subspaces(drifting, tmp_path / "fresh", **asked))
    path = next((out / "subspaces").rglob("*.safetensors"))
    held = {(one.step, one.against) for one in read_comparisons(path)}
    assert (10, 50) in held and (10, 40) not in held
    now, then = stored(drifting, 20), stored(drifting, 50)
    u, w = (np.linalg.svd(one)[0][:, :4] for one in (now, then))
    row = late.query("step == 20 and against == 50 and name == @NAME and side == 'left' and k == 4")
    values = row.set_index("measure")["value"]
    assert values["overlap"] == pytest.approx(((u.T @ w) ** 2).sum() / 4)
    assert values["least_cosine"] == pytest.approx(np.linalg.svd(u.T @ w)[1][-1])
    inside = ((w.T @ (now - then)) ** 2).sum() / ((now - then) ** 2).sum()
    assert values["update_energy"] == pytest.approx(inside)


def test_steps_to_compare_with_are_named_with_subspaces(drifting: Path, tmp_path: Path) -> None:
    with pytest.raises(WrongSettingError, match="choose from previous, first, last"):
        rs.analyze(drifting, out=tmp_path, subspaces=4, against="next")
    for asked in ({"against": "last"}, {"against": [], "subspaces": 4}):
        with pytest.raises(WrongSettingError, match="give at least one, and `subspaces`"):
            rs.analyze(drifting, out=tmp_path, **asked)


@pytest.mark.slow
def test_a_random_drift_moves_subspaces_as_far_as_chance_says(
    drifting: Path, tmp_path: Path
) -> None:
    table = subspaces(drifting, tmp_path / "out", components="weight", roles="up,gate,down")
    rows = table.query("measure == 'overlap' and status == 'ok'")
    assert len(rows) > 100
    assert abs((rows["value"] - rows["null"]).mean()) < 0.02


@pytest.mark.slow
def test_adapters_and_merges_are_compared_at_their_rank_against_unrelated_ones(
    relora_run: TinyRun, tmp_path: Path
) -> None:
    table = subspaces(relora_run.path, tmp_path / "out")
    merges = table.query("component == 'merge' and measure == 'overlap'")
    assert set(zip(merges["step"], merges["against"], strict=True)) == {(20, 10)}
    assert set(merges["k"]) == {1, RANK}
    left = merges.query("side == 'left' and k == @RANK and name == @NAME")
    module = NAME.removesuffix(".weight")
    q = [np.linalg.qr(relora_run.factors[step][module][0])[0] for step in (20, 10)]
    assert left["value"].item() == pytest.approx(((q[0].T @ q[1]) ** 2).sum() / RANK)
    assert left["null"].item() == RANK / q[0].shape[0]
    first = table.query("component == 'adapter' and against == 0")
    assert set(first["status"]) == {"zero"} and first["value"].isna().all()


def test_adapters_of_every_kind_are_compared_against_unrelated_ones(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    shapes = {"W": (12, 10), "B": (12, 2), "A": (2, 10), "m": (12, 1), "w1": (4, 2), "w2": (3, 5)}
    steps: list[dict[str, Tensor]] = []
    for step in range(2):
        path = tmp_path / f"{step}.safetensors"
        save_file({name: rng.normal(size=shape) for name, shape in shapes.items()}, path)
        steps.append(dict(open_tensors(path)))
    kinds: tuple[Callable[[dict[str, Tensor]], Recipe], ...] = (
        lambda t: Products((KroneckerAdapter(t["w1"], t["w2"], 1.5),)),
        lambda t: Rescaling(t["W"], Adapter(t["A"], t["B"], 1.5, t["m"])),
    )
    for kind in kinds:
        positions = tuple(Position(i, kind(t), str(i)) for i, t in enumerate(steps))
        (one,) = series(4, positions).compare()
        assert {found.measure for found in one.measures} == {"overlap", "least_cosine"}
        matrices = [dense(position.recipe.read()) for position in positions]
        u = [np.linalg.svd(matrix)[0][:, :4] for matrix in matrices]
        left = next(found for found in one.measures if (found.side, found.k) == ("left", 4))
        assert left.value == pytest.approx(((u[0].T @ u[1]) ** 2).sum() / 4)
        assert left.null == 4 / 12


@pytest.mark.parametrize(("b", "status"), [(1e-30, "no-gap"), (0.0, "zero"), (np.nan, "nonfinite")])
def test_what_has_no_certain_vector_is_not_called_zero(
    tmp_path: Path, b: float, status: str
) -> None:
    """Both values of this product, 1e-30, are below the error of its large factors."""
    factors = {"B": np.zeros((6, 2)), "A": np.zeros((2, 5))}
    factors["B"][:2], factors["A"][:, :2] = np.diag([b, b * 1e30]), np.diag([b * 1e30, b])
    save_file(factors, tmp_path / "0.safetensors")
    t = dict(open_tensors(tmp_path / "0.safetensors"))
    position = Position(0, Products((Adapter(t["A"], t["B"], 1.0),)), "0")
    positions = position, position._replace(step=1)
    (one,) = series(2, positions).compare()
    assert {(found.status, found.value) for found in one.measures} == {(status, None)}


def series(most: int, positions: tuple[Position, ...]) -> SubspaceSeries:
    return SubspaceSeries(
        *("adapter", NAME, most, (), positions),
        continues=False,
        previous=True,
        first=positions[0],
        last=None,
    )


def dense(matrix: Decomposable) -> np.ndarray:
    return matrix.values if isinstance(matrix, Dense) else matrix.multiplied()


@pytest.mark.slow
def test_a_new_step_leaves_what_was_found_and_computes_the_last_segment(
    drifting: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subspace_plans, "SEGMENT", 2)
    last, out = drifting / "checkpoint-50", tmp_path / "out"
    aside = shutil.move(last, tmp_path / "aside")
    early = subspaces(drifting, out, components="weight")
    files = sorted((out / "subspaces").rglob("*.safetensors"))
    before = [path.read_bytes() for path in files]
    assert subspaces(drifting, out, components="weight").equals(early)
    assert [path.read_bytes() for path in files] == before
    shutil.move(aside, last)
    whole = subspaces(drifting, out, components="weight")
    fresh = subspaces(drifting, tmp_path / "fresh", components="weight")
    pd.testing.assert_frame_equal(whole, fresh)
    assert whole.query("step < 50").reset_index(drop=True).equals(early)


@pytest.mark.slow
def test_a_damaged_file_of_the_store_is_computed_anew(drifting: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    table = subspaces(drifting, out, components="weight")
    path = next((out / "subspaces").rglob("*.safetensors"))
    content = path.read_bytes()
    path.write_bytes(content[:-8] + bytes(8))
    (out / "analysis.json").unlink()
    assert subspaces(drifting, out, components="weight").equals(table)
    assert path.read_bytes() == content


@pytest.mark.slow
def test_the_table_is_that_of_the_last_call(drifting: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    subspaces(drifting, out, components="weight")
    rs.analyze(drifting, out=out, components="weight", roles="up", jobs=1)
    assert rs.open_results(out).subspaces.empty
    assert not subspaces(drifting, out, components="weight").empty


def test_subspaces_need_a_folder_and_a_size(drifting: Path, tmp_path: Path) -> None:
    with pytest.raises(WrongSettingError, match="choose a folder for `out`"):
        rs.analyze(drifting, subspaces=4)
    with pytest.raises(WrongSettingError, match="give 1 or more"):
        rs.analyze(drifting, out=tmp_path, subspaces=0)


def test_steps_are_those_of_the_folders_whatever_they_were_before(
    drifting: Path, tmp_path: Path
) -> None:
    early = subspaces(drifting, tmp_path / "out", components="weight")
    for step in range(50, 0, -10):
        (drifting / f"checkpoint-{step}").rename(drifting / f"checkpoint-{2 * step}")
    late = subspaces(drifting, tmp_path / "out", components="weight")
    assert set(late["step"]) == {2 * step for step in early["step"]}
    fresh = subspaces(drifting, tmp_path / "fresh", components="weight")
    assert late.equals(fresh)


@pytest.mark.parametrize("damaged", [0, 30, 50])
def test_a_damaged_matrix_costs_its_step_and_its_neighbours_are_compared(
    tmp_path: Path, damaged: int
) -> None:
    torch = pytest.importorskip("torch")
    rng, steps = np.random.default_rng(3), list(range(0, 60, 10))
    for step in steps:
        write_model(tmp_path / "run" / f"checkpoint-{step}", {})
        (tmp_path / "run" / f"checkpoint-{step}" / "model.safetensors").unlink()
        weights = {name: torch.from_numpy(w) for name, w in random_weights(rng).items()}
        path = tmp_path / "run" / f"checkpoint-{step}" / "pytorch_model.bin"
        torch.save(weights, path)
        if step == damaged:
            content = bytearray(path.read_bytes())
            content[content.index(weights[NAME].numpy().tobytes()) + 8] ^= 64
            path.write_bytes(content)
    with pytest.warns(rs.RankscopeWarning, match="do not match their checksum"):
        table = subspaces(tmp_path / "run", tmp_path / "out", components="weight")
    whole = [step for step in steps if step != damaged]
    expected = {(now, earlier) for now, earlier in pairwise(whole)}
    expected = {(b, a) for a, b in expected} | {(step, whole[0]) for step in whole[1:]}
    rows = table[table["name"] == NAME]
    assert set(zip(rows["step"], rows["against"], strict=True)) == expected
    assert len(table[table["name"] != NAME].groupby(["step", "against"])) == 9
