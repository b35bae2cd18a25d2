"""Findings from tables: rows as an analysis writes them, with the fault in the numbers."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from rankscope.checkpoints.discovery import open_run
from rankscope.diagnostics.conditioning import check_conditioning
from rankscope.diagnostics.diagnose import diagnose, names_in
from rankscope.diagnostics.evidence import Check, Evidence
from rankscope.diagnostics.finding import Finding, Unchecked
from rankscope.diagnostics.new_directions import check_intruders
from rankscope.diagnostics.rank_collapse import check_collapse
from rankscope.diagnostics.same_subspace import check_subspaces
from rankscope.diagnostics.unresolved_updates import check_resolved
from rankscope.results.columns import ANALYSIS_RECORD, SUBSPACE_COLUMNS
from rankscope.results.results import Results, table_of, typed_subspaces
from tests.conftest import TinyRun
from tests.diagnostics.surgery import codes

LAYERS = 6
QUERY = "model.layers.{}.self_attn.q_proj.weight"


def row(layer: int, step: int, **values: Any) -> dict[str, Any]:
    """A row of a weight, with columns as given."""
    place = {"run": "relora", "step": step, "layer": layer, "role": "q", "component": "weight"}
    shape = {"rows": 16, "cols": 16, "status": "ok", "per_error": 1e-9, "dtype": "float32"}
    return place | shape | {"name": QUERY.format(layer)} | values


def evidence(
    path: Path, rows: list[dict[str, Any]], subspaces: list[dict[str, Any]] | None = None
) -> Evidence:
    """The evidence of a run with these tables."""
    moved = None
    if subspaces is not None:
        moved = typed_subspaces(pd.DataFrame(subspaces, columns=list(SUBSPACE_COLUMNS)))
    return Evidence.of(open_run(path), table_of(rows), moved)


def found(check: Check, known: Evidence) -> list[Finding]:
    """The findings of a check that could be made."""
    results = list(check(known))
    assert not any(isinstance(one, Unchecked) for one in results)
    return [one for one in results if isinstance(one, Finding)]


def weights(last: dict[int, float]) -> list[dict[str, Any]]:
    """PER 0.8 in every layer at first, and 0.6 at the end but where given."""
    rows = [row(layer, 0, per=0.8) for layer in range(LAYERS)]
    return rows + [row(layer, 30, per=last.get(layer, 0.6)) for layer in range(LAYERS)]


def collapsed(*runs: Evidence) -> list[Finding]:
    return [one for one in check_collapse(runs) if isinstance(one, Finding)]


def test_a_weight_that_falls_alone_is_below_its_start_and_its_siblings(
    relora_run: TinyRun,
) -> None:
    (one,) = collapsed(evidence(relora_run.path, weights({4: 0.1})))  # one finding for both
    assert one.matrices == (QUERY.format(4),)
    assert one.numbers["of_first"] == pytest.approx(0.1 / 0.8)
    assert one.numbers["of_layers"] == pytest.approx(0.1 / 0.6)
    assert "1 of 6 weights" in one.evidence and "12% of it" in one.evidence


def test_layers_that_fall_together_are_below_their_start_only(relora_run: TinyRun) -> None:
    rows = weights(dict.fromkeys(range(LAYERS), 0.15))
    (one,) = collapsed(evidence(relora_run.path, rows))
    assert len(one.matrices) == LAYERS and one.steps == (30,)
    assert "of_layers" not in one.numbers


@pytest.mark.parametrize("per", [0.35, 0.6, 0.9])
def test_an_ordinary_fall_is_no_collapse(per: float, relora_run: TinyRun) -> None:
    assert not collapsed(evidence(relora_run.path, weights({4: per})))


def test_a_fall_that_its_error_may_explain_is_no_collapse(relora_run: TinyRun) -> None:
    rows = [one | {"per_error": 3.0} for one in weights({4: 0.1})]
    assert not collapsed(evidence(relora_run.path, rows))


def test_the_first_per_of_another_training_is_not_compared(relora_run: TinyRun) -> None:
    known = evidence(relora_run.path, weights(dict.fromkeys(range(LAYERS), 0.15)))
    known.steps = tuple(replace(one, breaks=one.step == 20) for one in known.steps)
    assert not collapsed(known)


def test_a_low_rank_run_is_compared_with_the_full_rank_runs_beside_it(
    relora_run: TinyRun, full_run: Path
) -> None:
    low = evidence(
        relora_run.path, [r for r in weights(dict.fromkeys(range(6), 0.25)) if r["step"]]
    )

    def full(name: str, step: int, per: float) -> Evidence:
        own = weights(dict.fromkeys(range(LAYERS), per))
        known = evidence(full_run, [r | {"run": name, "step": step} for r in own if r["step"]])
        known.run = replace(known.run, name=name)
        return known

    (one,) = collapsed(low, full("a", 30, 0.8), full("b", 30, 0.9))
    assert one.run == "relora" and len(one.matrices) == LAYERS
    assert one.numbers["of_full_rank"] == pytest.approx(0.25 / 0.85)
    assert "the PER of full rank in a, b" in one.evidence
    # Runs at other steps are not compared, and take nothing from those that are.
    assert not collapsed(low, full("a", 20, 0.9))
    (one,) = collapsed(low, full("a", 30, 0.8), full("early", 20, 0.1))
    assert one.numbers["of_full_rank"] == pytest.approx(0.25 / 0.8)
    assert not collapsed(full("a", 30, 0.2), full("b", 30, 0.9))


def test_updates_below_the_noise_floor_are_found(relora_run: TinyRun) -> None:
    update = {"component": "update", "signal_to_noise": 50.0, "numerical_rank": 3}
    noisy = update | {"signal_to_noise": 0.4, "numerical_rank": 0, "dtype": "bfloat16"}
    rows = [row(layer, 10, **(noisy if layer == 2 else update)) for layer in range(LAYERS)]
    (one,) = found(check_resolved, evidence(relora_run.path, rows))
    assert one.matrices == (QUERY.format(2),) and "bfloat16" in one.evidence
    assert not found(check_resolved, evidence(relora_run.path, rows[:2]))


@pytest.mark.parametrize(("condition", "is_found"), [(60.0, False), (2e3, True)])
def test_ill_conditioned_cycles_are_found(
    condition: float, is_found: bool, relora_run: TinyRun
) -> None:
    merge = {"component": "merge", "condition_number_r": 2.0, "rank_utilisation": 0.9}
    bad = merge | {"condition_number_r": condition, "rank_utilisation": 0.4}
    rows = [row(layer, 10, **merge) for layer in range(LAYERS)]
    rows += [row(layer, 20, **bad) for layer in range(LAYERS)]
    # Within a cycle it is large by construction, and says nothing.
    within = {"component": "update", "window": "within", "condition_number_r": 1e6}
    rows += [row(layer, 30, **within) for layer in range(LAYERS)]
    ill = found(check_conditioning, evidence(relora_run.path, rows))
    assert [one.steps for one in ill] == ([(20,)] if is_found else [])


def moved(layer: int, measure: str, value: float, null: float, **values: Any) -> dict[str, Any]:
    place = {"run": "relora", "layer": layer, "role": "q", "name": QUERY.format(layer)}
    numbers = {"measure": measure, "value": value, "null": null, "error": 0.0, "noise": 0.0}
    return place | numbers | {"status": "ok"} | values


@pytest.mark.parametrize(("value", "is_found"), [(0.2, False), (0.95, True)])
def test_cycles_that_learn_the_same_directions_are_found(
    value: float, is_found: bool, relora_run: TinyRun
) -> None:
    merge = {"component": "merge", "step": 20, "against": 10, "k": 2}
    rows = [moved(layer, "overlap", value, 0.12, side="right", **merge) for layer in range(3)]
    # The left sides of healthy adapters may overlap: the gradient is of low rank there.
    rows += [moved(layer, "overlap", 0.99, 0.12, side="left", **merge) for layer in range(3)]
    same = found(check_subspaces, evidence(relora_run.path, [], rows))
    assert [one.steps for one in same] == ([(20,)] if is_found else [])


@pytest.mark.parametrize(("null", "is_found"), [(0.0, True), (3.0, False)])
def test_intruders_count_where_chance_gives_none(
    null: float, is_found: bool, relora_run: TinyRun
) -> None:
    last = {"component": "weight", "step": 30, "against": 0, "k": 10, "side": "left"}
    rows = [moved(layer, "intruders", 2.0, null, **last) for layer in range(3)]
    rows += [moved(layer, "intruders", 9.0, 0.0, **(last | {"against": 20})) for layer in range(3)]
    new = found(check_intruders, evidence(relora_run.path, [], rows))
    assert [one.steps for one in new] == ([(30,)] if is_found else [])


def test_without_results_the_checks_that_need_them_are_named(relora_run: TinyRun) -> None:
    said = diagnose(relora_run.path).unchecked
    assert {one.reason for one in said} == {
        "needs spectra: give `results`",
        "the log has no learning rates",
    }
    unchecked = {one.code for one in said}
    needed = {"rank-collapse", "cycle-ill-conditioned", "update-below-noise"}
    assert unchecked >= needed | {"restart-same-subspace", "intruder-dimensions"}


@pytest.mark.slow
def test_with_the_results_of_an_analysis_every_check_is_made(
    relora_run: TinyRun, tmp_path: Path
) -> None:
    """A weight that loses all but one direction, measured and found from end to end."""
    import rankscope as rs
    from tests.diagnostics.surgery import edit, model

    name = "model.layers.1.self_attn.o_proj.weight"
    column = np.random.default_rng(3).normal(size=16)
    edit(
        model(relora_run, 30),
        lambda n, v: np.outer(column, column).astype(v.dtype) if n == name else v,
    )
    rs.analyze(relora_run.path, out=tmp_path / "out", jobs=1, subspaces=2)
    result = diagnose(relora_run.path, results=tmp_path / "out")
    assert {one.code for one in result.unchecked} == {"learning-rate-misaligned"}  # no rates
    assert codes(result) == {"merge-of-something-else", "rank-collapse"}
    collapsed = next(one for one in result if one.code == "rank-collapse")
    assert collapsed.matrices == (name,)


@pytest.mark.parametrize(
    ("recorded", "run", "expected"),
    [
        (["group/relora"], "relora", "group/relora"),  # a folder above it was given then
        (["relora"], "group/relora", "relora"),
        (["ema", "ema/ema"], "ema", "ema"),  # two series in one folder
        (["ema", "ema/ema"], "ema/ema", "ema/ema"),
        (["r/actor", "r/critic"], "critic", "r/critic"),
        (["r/actor"], "critic", None),
    ],
)
def test_a_run_is_known_by_its_path_and_the_end_of_its_name(
    recorded: list[str], run: str, expected: str | None, tmp_path: Path, relora_run: TinyRun
) -> None:
    runs = [{"name": name, "path": str(relora_run.path)} for name in recorded]
    (tmp_path / ANALYSIS_RECORD).write_text(json.dumps({"runs": runs}))
    asked = replace(open_run(relora_run.path), name=run)
    named = dict(names_in(Results(tmp_path), [asked]))
    assert named.get(run) == expected
