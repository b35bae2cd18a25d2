"""Deltas of adapters, changes of them, and scales that nobody knows."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import save_file

from rankscope.analysis.plan import plan_run
from rankscope.analysis.request import Selection
from rankscope.checkpoints.discovery import open_run
from rankscope.checkpoints.merges import read_merge
from rankscope.components.component import Component, Moment
from rankscope.components.selection import AT_CHECKPOINTS, AT_MERGES
from rankscope.components.windows import Window
from rankscope.results.measure import NORMS, SCALED, measure
from rankscope.results.spectra_store import Entry, read_entries, write_entries
from rankscope.spectra.matrices import LowRank
from rankscope.spectra.singular_values import spectrum
from rankscope.spectra.spectrum import Norm

OUT, IN, RANK = 12, 10, 2
MODULE = "model.layers.0.self_attn.q_proj"
Factors = tuple[NDArray[np.float32], NDArray[np.float32]]


def write(folder: Path, factors: Factors, **config: object) -> None:
    folder.mkdir(parents=True)
    names = (f"base_model.model.{MODULE}.lora_{side}.weight" for side in "AB")
    save_file(dict(zip(names, factors, strict=True)), folder / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": RANK, **config}
    (folder / "adapter_config.json").write_text(json.dumps(config))


def random(rng: np.random.Generator, rank: int = RANK) -> Factors:
    a, b = rng.normal(size=(rank, IN)), rng.normal(size=(OUT, rank))
    return a.astype(np.float32), b.astype(np.float32)


def updates(run: Path) -> list[Component]:
    earlier, later = (checkpoint.contents for checkpoint in open_run(run))
    return list(AT_CHECKPOINTS["update"](Moment(later, earlier, None, Window(10, 20))))


def test_the_update_between_two_states_of_an_adapter_needs_no_base(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    states = [random(rng), random(rng)]
    for step, alpha, factors in zip((10, 20), (4, 6), states, strict=True):
        write(tmp_path / f"checkpoint-{step}", factors, lora_alpha=alpha)
    (component,) = updates(tmp_path)
    matrix = component.recipe.read()
    assert isinstance(matrix, LowRank) and matrix.inner == 2 * RANK and matrix.is_scaled
    (a0, b0), (a1, b1) = ((a.astype(float), b.astype(float)) for a, b in states)
    assert matrix.multiplied() == pytest.approx(3 * b1 @ a1 - 2 * b0 @ a0)
    assert component.role == "q" and component.name == f"{MODULE}.weight"


@pytest.mark.parametrize(
    ("before", "after", "reason"),
    [
        ({"base_model_name_or_path": "a"}, {"base_model_name_or_path": "b"}, "base-changed"),
        ({"lora_alpha": 4}, {}, "scale-unknown"),
        ({}, {"lora_alpha": 4}, "scale-unknown"),
    ],
)
def test_states_that_cannot_be_compared_give_a_reason_and_no_number(
    before: dict[str, object],
    after: dict[str, object],
    reason: str,
    tmp_path: Path,
    rng: np.random.Generator,
) -> None:
    for step, config in ((10, before), (20, after)):
        write(tmp_path / f"checkpoint-{step}", random(rng), **config)
    (component,) = updates(tmp_path)
    assert getattr(component.recipe, "reason", None) == reason


def test_two_states_of_unknown_scale_are_compared_up_to_it(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    for step in (10, 20):
        write(tmp_path / f"checkpoint-{step}", random(rng))
    (component,) = updates(tmp_path)
    assert not spectrum(component.recipe.read()).is_scaled  # type: ignore[arg-type]


def test_an_unknown_scale_leaves_norms_empty_and_ranks_as_they_are(
    rng: np.random.Generator, tmp_path: Path
) -> None:
    left, right = rng.normal(size=(OUT, RANK)), rng.normal(size=(RANK, IN))
    product = LowRank(left, right, floor=1e-3, before=(Norm(9.0, 0.0),))
    known, unknown = (spectrum(replace(product, is_scaled=scaled)) for scaled in (True, False))
    first, second = (measure(one, whole=False) for one in (known, unknown))
    assert all(first[name] is not None for name in SCALED) and set(NORMS) < set(SCALED)
    assert all(second[name] is None for name in SCALED)
    assert {k: v for k, v in first.items() if k not in SCALED} == {
        k: v for k, v in second.items() if k not in SCALED
    }
    assert second["numerical_rank"] == RANK and second["per"] is not None
    assert second["per_resolved"] == second["per"] and second["significant_bits"] == 53
    # Another scale, the same row: nothing that is given depends on it.
    eightfold = replace(product, left=8 * left, floor=8e-3, is_scaled=False)
    scaled = measure(spectrum(eightfold), whole=False)
    assert {k: v for k, v in scaled.items() if isinstance(v, float)} == pytest.approx(
        {k: v for k, v in second.items() if isinstance(v, float)}
    )
    path = tmp_path / "step.safetensors"
    place = dict.fromkeys(("component", "name", "head", "expert", "layer", "role"))
    write_entries(path, [Entry(f"{i}", place, one) for i, one in enumerate((known, unknown))])
    assert [entry.spectrum.is_scaled for entry in read_entries(path)] == [True, False]


def test_a_sum_with_a_product_of_unknown_scale_has_none(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    write(tmp_path / "checkpoint-10", random(rng))
    selection = Selection.of(components=["weight", "base", "adapter"])
    (plan,) = plan_run(open_run(tmp_path), selection)
    assert [task.component.kind for task in plan.tasks] == ["adapter"]
    matrix = plan.tasks[0].component.recipe.read()
    assert isinstance(matrix, LowRank) and not matrix.is_scaled


def test_a_base_that_stands_for_its_weight_is_planned_once(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    (tmp_path / "checkpoint-10").mkdir()
    a, b = random(rng)
    tensors = {f"{MODULE}.lora_A.weight": a, f"{MODULE}.lora_B.weight": b}
    tensors[f"{MODULE}.base_layer.weight"] = np.ones((OUT, IN), np.float32)
    save_file(tensors, tmp_path / "checkpoint-10" / "model.safetensors")
    for components in (["weight"], ["base"], ["weight", "base"]):
        (plan,) = plan_run(open_run(tmp_path), Selection.of(components=components))
        assert [task.component.kind for task in plan.tasks] == ["base"]


@pytest.mark.parametrize(
    ("module", "shape", "roles"),
    [
        ("transformer.h.1.attn.c_attn", (24, 8), ["q", "k", "v"]),
        ("transformer.h.1.mlp.c_fc", (16, 8), ["up"]),
        ("roberta.encoder.layer.1.attention.self.key", (8, 8), ["k"]),
        ("model.layers.1.mlp.down_proj", (8, 16), ["down"]),
        ("blocks.1.anything", (8, 16), ["other"]),
    ],
)
def test_merges_are_identified_as_weights_are(
    module: str,
    shape: tuple[int, int],
    roles: list[str],
    tmp_path: Path,
    rng: np.random.Generator,
) -> None:
    merges, total = [], np.zeros(shape)
    for step in (10, 20):
        a, b = rng.normal(size=(RANK, shape[1])), rng.normal(size=(shape[0], RANK))
        tensors = {f"{module}.lora_A": a, f"{module}.lora_B": b, f"{module}.scale": np.array([2.0])}
        path = tmp_path / f"step-{step:08d}.safetensors"
        save_file(tensors, path)
        merges.append(read_merge(path))
        total += 2.0 * b @ a
    found = list(AT_MERGES["merged_total"](merges, None))
    assert [component.role for component in found] == roles
    for component, rows in zip(found, np.split(total, len(roles)), strict=True):
        matrix = component.recipe.read()
        assert isinstance(matrix, LowRank) and matrix.multiplied() == pytest.approx(rows)
    assert [c.role for c in AT_MERGES["merge"](merges, None)] == roles
