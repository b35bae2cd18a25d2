import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from rankscope.diagnostics.diagnose import diagnose
from rankscope.diagnostics.merges_checked import factor_in_words
from tests.checkpoints.test_relora_layouts import ALPHA, STATE, wrapped, write_relora
from tests.conftest import (
    CONFIG,
    MODULES,
    RANK,
    Tensors,
    TinyRun,
    random_factors,
    random_weights,
    write_adapter,
    write_model,
)
from tests.diagnostics.surgery import adapter, codes, edit, model, of, only, set_merges

SCALE = ALPHA / RANK  # of the adapters of Guitaricet/relora


def test_a_run_that_merges_what_it_learned_has_no_findings(relora_run: TinyRun) -> None:
    found = diagnose(relora_run.path)
    assert not found, repr(found)


@pytest.mark.parametrize(("factor", "words"), [(0.5, "left out the scale, 2"), (0.75, "×")])
def test_the_factor_of_a_merge_is_found(factor: float, words: str, relora_run: TinyRun) -> None:
    set_merges(relora_run, lambda step, module: factor * relora_run.delta(step, module))
    finding = of(relora_run.path, "merge-changed-function")
    # The definition, by least squares on what is on disk.
    name = "model.layers.1.mlp.up_proj.weight"
    change = load_file(model(relora_run, 20))[name] - load_file(model(relora_run, 10))[name]
    wanted = relora_run.delta(10, name.removesuffix(".weight")).reshape(-1, 1)
    (expected,), *_ = np.linalg.lstsq(wanted, change.ravel().astype(np.float64), rcond=None)
    assert finding.numbers["share"] == pytest.approx(expected, abs=1e-6)
    assert finding.numbers["share"] == pytest.approx(factor, abs=1e-6)
    assert isinstance(finding.numbers["share_error"], float)
    assert finding.numbers["share_error"] < 1e-5
    assert words in finding.evidence
    assert finding.severity == "error"
    assert finding.steps == relora_run.merges
    assert set(finding.matrices) == {f"{module}.weight" for module in MODULES}


def test_one_wrong_merge_of_one_matrix_is_enough(relora_run: TinyRun) -> None:
    bad = "model.layers.0.self_attn.k_proj"
    set_merges(
        relora_run,
        lambda step, module: (
            relora_run.delta(step, module) * (2 if (step, module) == (20, bad) else 1)
        ),
    )
    finding = of(relora_run.path, "merge-changed-function")
    assert (finding.steps, finding.matrices) == ((20,), (f"{bad}.weight",))


def test_a_record_without_the_scale_does_not_hide_that_it_was_left_out(
    relora_run: TinyRun,
) -> None:
    for step in relora_run.merges:
        path = relora_run.path / "merges" / f"step-{step:08d}.safetensors"
        edit(path, lambda name, value: np.ones(1) if name.endswith(".scale") else value)
    set_merges(relora_run, lambda step, module: relora_run.delta(step, module) / relora_run.scale)
    finding = of(relora_run.path, "merge-changed-function")
    assert "left out the scale, 2" in finding.evidence


@pytest.mark.parametrize(
    ("share", "scale", "words"),
    [
        (0.25, 4.0, "the merge left out the scale, 4"),
        (4.0, 4.0, "the merge applied the scale, 4, twice"),
        (2.0, 4.0, "it was merged twice"),
        (0.5, 4.0, "half of it was merged"),
        (-1.0, 4.0, "it was subtracted instead of added"),
        (0.0, 4.0, "nothing along it was merged"),
        (0.6, 4.0, ""),
    ],
)
def test_simple_factors_are_explained(share: float, scale: float, words: str) -> None:
    assert factor_in_words(share, scale, 0.02) == words


def test_a_restart_that_merges_nothing_is_found(relora_run: TinyRun) -> None:
    set_merges(relora_run, lambda step, module: 0 * relora_run.delta(step, module))
    finding = of(relora_run.path, "restart-merged-nothing")
    assert finding.severity == "error" and finding.numbers["unmoved"] == 1


def test_a_merge_of_something_else_is_found(relora_run: TinyRun, rng: np.random.Generator) -> None:
    set_merges(relora_run, lambda _, module: rng.normal(size=MODULES[module]))
    assert of(relora_run.path, "merge-of-something-else").severity == "error"


def bfloat16(values: np.ndarray) -> np.ndarray:
    """Rounded to bfloat16 by torch, as float64."""
    rounded = torch.from_numpy(np.asarray(values, np.float32)).bfloat16()
    return rounded.double().numpy()


def short_weights(run: TinyRun) -> dict[str, np.ndarray]:
    """Round the initial weights of the modules with adapters, and only these."""
    start = {f"{module}.weight": bfloat16(run.weights[0][f"{module}.weight"]) for module in MODULES}
    run.weights[0] |= {name: value.astype(np.float32) for name, value in start.items()}
    return start


@pytest.mark.parametrize(("size", "severity"), [(0.002, "warning"), (0.0003, "error")])
def test_merges_that_a_short_format_loses_are_found(
    size: float, severity: str, relora_run: TinyRun
) -> None:
    """By the size of a merge over that of the weight; both B and the record shrink with it."""
    start = short_weights(relora_run)
    shrunk = {}
    for step in (0, 10, 20, 30):
        edit(
            adapter(relora_run, step),
            lambda name, value: value * size if "lora_B" in name else value,
        )
    for step in relora_run.merges:
        path = relora_run.path / "merges" / f"step-{step:08d}.safetensors"
        edit(path, lambda name, value: value * size if name.endswith("lora_B") else value)
    before = {name: value.copy() for name, value in start.items()}

    def merged(step: int, module: str) -> np.ndarray:
        name = f"{module}.weight"
        after = bfloat16(before[name] + size * relora_run.delta(step, module))
        change = after - before[name]
        shrunk[step, module] = float((change == 0).mean())
        before[name] = after
        return change

    set_merges(relora_run, merged)
    found = diagnose(relora_run.path)
    assert codes(found) == {"merge-lost-to-rounding", "merged-in-fewer-bits"}, repr(found)
    finding = next(one for one in found if one.code == "merge-lost-to-rounding")
    assert finding.severity == severity
    assert finding.numbers["unmoved"] == pytest.approx(np.median(list(shrunk.values())), abs=0.05)


def test_a_short_format_that_keeps_a_merge_is_no_error_of_the_merge(relora_run: TinyRun) -> None:
    before = short_weights(relora_run)

    def merged(step: int, module: str) -> np.ndarray:
        name = f"{module}.weight"
        after = bfloat16(before[name] + bfloat16(relora_run.delta(step, module)))
        change, before[name] = after - before[name], after
        return change

    set_merges(relora_run, merged)
    assert of(relora_run.path, "merged-in-fewer-bits").severity == "warning"


def test_adapters_that_go_on_after_a_restart_are_found(
    relora_run: TinyRun, rng: np.random.Generator
) -> None:
    old = load_file(adapter(relora_run, 10))
    edit(adapter(relora_run, 20), lambda n, v: old[n] + 0.5 * rng.normal(size=v.shape).astype("f4"))
    # What was merged at step 20 is the adapter of that step.
    path = relora_run.path / "merges" / "step-00000020.safetensors"
    new = load_file(adapter(relora_run, 20))
    edit(path, lambda n, v: v if n.endswith("scale") else new[f"base_model.model.{n}.weight"])
    for module in MODULES:
        names = (f"base_model.model.{module}.lora_{x}.weight" for x in "BA")
        left, right = (new[name].astype(np.float64) for name in names)
        relora_run.factors[20][module] = left, right
    set_merges(relora_run, relora_run.delta)
    finding = of(relora_run.path, "restart-reset-nothing")
    assert finding.steps == (10,) and finding.severity == "error"
    cosines = [
        float(np.corrcoef(old[n].ravel(), new[n].ravel())[0, 1]) for n in new if "lora_A" in n
    ]
    assert finding.numbers["cosine_a"] == pytest.approx(np.median(cosines), abs=0.05)


# Guitaricet/relora: restarts are counted, not recorded


def write_counted(
    path: Path, rng: np.random.Generator, factor: float, *, keeps: bool = False
) -> None:
    """Two checkpoints with a restart between; the first is from just before it."""
    first = wrapped(rng, random_weights(rng))
    second = dict(first) if keeps else wrapped(rng, first)
    for module in MODULES:
        left, right = (first[f"{module}.lora_{x}.weight"].astype(np.float64) for x in "BA")
        second[f"{module}.weight"] = (
            first[f"{module}.weight"] + factor * SCALE * left @ right
        ).astype(np.float32)
    for step, restarts, tensors in ((1000, 0, first), (2000, 1, second)):
        folder = path / f"model_{step}"
        write_relora(folder, tensors)
        state = STATE | {"update_step": step, "n_lora_restarts": restarts}
        (folder / "training_state.json").write_text(json.dumps(state))


@pytest.mark.parametrize(
    ("factor", "keeps", "code"),
    [
        (1.0, False, None),
        (1 / SCALE, False, "merge-changed-function"),
        (0.0, False, "restart-merged-nothing"),
        (1.0, True, "restart-reset-nothing"),
    ],
)
def test_counted_restarts_are_compared_with_the_adapter_before(
    factor: float, keeps: bool, code: str | None, tmp_path: Path, rng: np.random.Generator
) -> None:
    write_counted(tmp_path, rng, factor, keeps=keeps)
    found = diagnose(tmp_path)
    assert codes(found) == ({code} if code else set()), repr(found)


def test_where_a_cycle_went_on_before_a_counted_restart_nothing_is_said_of_its_merge(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    write_counted(tmp_path, rng, 1.0)
    later = random_factors(rng)  # what was really merged, later than the checkpoint
    edit(
        tmp_path / "model_2000" / "model.safetensors",
        lambda name, value: (
            value + (later[name[:-7]][0] @ later[name[:-7]][1]).astype("f4")
            if name[:-7] in later
            else value
        ),
    )
    assert not diagnose(tmp_path)


@pytest.mark.parametrize("is_reset", [True, False])
def test_a_step_counter_of_adam_that_outlives_a_restart_is_found(
    is_reset: bool, tmp_path: Path, rng: np.random.Generator
) -> None:
    write_counted(tmp_path, rng, 1.0)
    parameters = [torch.nn.Parameter(torch.ones(2)) for _ in range(3)]
    optimizer = torch.optim.AdamW(parameters)
    for _ in range(3):
        for parameter in parameters:
            parameter.grad = torch.ones(2)
        optimizer.step()
        if is_reset:
            optimizer.state.pop(parameters[0])
    held = {"optimizer": optimizer.state_dict(), "update_step": 2000}
    torch.save(held, tmp_path / "model_2000" / "optimizer.pt")
    if is_reset:
        assert not diagnose(tmp_path)
    else:
        finding = of(tmp_path, "optimizer-not-reset")
        assert finding.numbers["counter"] == 3 and finding.steps == (2000,)


# Axolotl: the adapter that was merged is in a folder of its own


def write_axolotl(path: Path, rng: np.random.Generator, factor: float) -> None:
    """Steps 10 and 30 within cycles and 20 with a merge."""
    weights, second, third = random_weights(rng), random_factors(rng), random_factors(rng)
    merged: Tensors = dict(weights)
    for module, (left, right) in second.items():
        name = f"{module}.weight"
        merged[name] = (weights[name] + factor * 2.0 * left @ right).astype(np.float32)
    for step, factors, frozen in (
        (10, random_factors(rng), weights),
        (20, second, merged),
        (30, third, merged),
    ):
        folder = path / f"checkpoint-{step}"
        write_adapter(folder, factors, scale=2.0)
        write_model(folder / "relora", frozen)
        if step == 20:
            write_adapter(folder / "adapter", factors, scale=2.0)
    (path / "config.json").write_text(json.dumps(CONFIG))


@pytest.mark.parametrize(
    ("factor", "code"),
    [(1.0, None), (0.5, "merge-changed-function"), (0.0, "restart-merged-nothing")],
)
def test_axolotls_merges_are_compared_with_the_adapter_that_it_keeps(
    factor: float, code: str | None, tmp_path: Path, rng: np.random.Generator
) -> None:
    write_axolotl(tmp_path, rng, factor)
    found = diagnose(tmp_path)
    if code is None:
        assert not found, repr(found)
    else:
        assert only(found, code).steps == (20,)


def test_axolotls_adapters_that_were_not_reset_are_found(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    write_axolotl(tmp_path, rng, 1.0)
    kept = load_file(tmp_path / "checkpoint-20" / "adapter" / "adapter_model.safetensors")
    save_file(kept, tmp_path / "checkpoint-30" / "adapter_model.safetensors")
    assert only(diagnose(tmp_path), "restart-reset-nothing").steps == (20,)


def test_where_only_a_is_kept_the_restart_did_reset(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    """As where the new A is chosen from a gradient that has hardly changed."""
    write_counted(tmp_path, rng, 1.0)
    first, second = (tmp_path / f"model_{step}" / "model.safetensors" for step in (1000, 2000))
    old = load_file(first)
    edit(second, lambda name, value: old[name] if "lora_A" in name else value)
    assert not diagnose(tmp_path)
