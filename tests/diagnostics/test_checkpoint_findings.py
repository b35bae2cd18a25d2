import json
import math
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from rankscope.checkpoints.contents import Skip
from rankscope.checkpoints.discovery import open_run
from rankscope.checkpoints.files.safetensors_file import open_tensors
from rankscope.diagnostics.dead_adapters import is_zero
from rankscope.diagnostics.diagnose import diagnose
from rankscope.diagnostics.evidence import Evidence
from rankscope.diagnostics.finding import Finding
from rankscope.diagnostics.unreadable_steps import check_readable
from tests.analysis.series import write_step
from tests.conftest import (
    MODULES,
    Tensors,
    TinyRun,
    random_factors,
    random_weights,
    write_adapter,
    write_model,
)
from tests.diagnostics.surgery import adapter, codes, edit, model, of, only

NAME = "model.layers.0.mlp.up_proj"


def write_calm(path: Path, rng: np.random.Generator, steps: int = 6) -> Tensors:
    """A training that moves its weights by a tenth in each interval; returns the first weights."""
    weights = first = random_weights(rng)
    for step in range(steps):
        write_step(path, 10 * step, weights)
        weights = {n: (w + 0.1 * rng.normal(size=w.shape)).astype("f4") for n, w in weights.items()}
    return first


def weights_at(path: Path, step: int) -> Path:
    return path / f"checkpoint-{step}" / "model.safetensors"


def test_a_calm_training_has_no_findings(tmp_path: Path, rng: np.random.Generator) -> None:
    write_calm(tmp_path, rng)
    assert not diagnose(tmp_path)


# adapters that cannot learn


def zero(run: TinyRun, step: int, *parts: str, module: str = "") -> None:
    edit(
        adapter(run, step),
        lambda name, value: (
            0 * value if module in name and any(part in name for part in parts) else value
        ),
    )


def test_adapters_of_which_both_factors_are_zero_are_dead(relora_run: TinyRun) -> None:
    zero(relora_run, 0, "lora_A", "lora_B")
    finding = of(relora_run.path, "adapter-dead")
    assert finding.steps == (0,) and len(finding.matrices) == len(MODULES)
    assert finding.severity == "error"


def test_one_dead_adapter_is_named(relora_run: TinyRun) -> None:
    zero(relora_run, 0, "lora_A", "lora_B", module=NAME)
    assert of(relora_run.path, "adapter-dead").matrices == (f"{NAME}.weight",)


def test_an_adapter_that_starts_with_b_zero_is_alive(relora_run: TinyRun) -> None:
    assert not load_file(adapter(relora_run, 0))[f"base_model.model.{NAME}.lora_B.weight"].any()
    assert not diagnose(relora_run.path)


def write_peft(path: Path, rng: np.random.Generator, *, scale: float = 2.0) -> None:
    """Three states of PEFT adapters on one base model, beside them."""
    base = path / "base"
    write_model(base, random_weights(rng))
    factors = random_factors(rng)
    for step in (10, 20, 30):
        folder = path / "run" / f"checkpoint-{step}"
        write_adapter(folder, factors, scale=scale)
        config = json.loads((folder / "adapter_config.json").read_text())
        config |= {"base_model_name_or_path": str(base)}
        (folder / "adapter_config.json").write_text(json.dumps(config))
        factors = {m: (b + 0.01, a + 0.01) for m, (b, a) in factors.items()}


def test_healthy_adapters_of_peft_have_no_findings(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    write_peft(tmp_path, rng)
    assert not diagnose(tmp_path / "run")


def test_a_scale_of_zero_is_dead(tmp_path: Path, rng: np.random.Generator) -> None:
    write_peft(tmp_path, rng, scale=0.0)
    assert of(tmp_path / "run", "adapter-scale-dead").steps == (10, 20, 30)


def test_an_adapter_that_stays_while_others_move_is_found(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    write_peft(tmp_path, rng)
    paths = [tmp_path / "run" / f"checkpoint-{s}" / "adapter_model.safetensors" for s in (10, 20)]
    old = load_file(paths[0])
    edit(paths[1], lambda name, value: old[name] if f"{NAME}." in name else value)
    finding = of(tmp_path / "run", "adapter-does-not-move")
    assert (finding.steps, finding.matrices) == ((10, 20), (f"{NAME}.weight",))


def test_states_of_peft_that_are_all_the_same_are_named_once(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    write_peft(tmp_path, rng)
    paths = [tmp_path / "run" / f"checkpoint-{s}" / "adapter_model.safetensors" for s in (10, 20)]
    save_file(load_file(paths[0]), paths[1])
    assert of(tmp_path / "run", "identical-weights").steps == (10, 20)


@pytest.mark.parametrize(("steps", "severity"), [((0, 10, 20, 30), "error"), ((20,), "warning")])
def test_a_zero_gradient_is_found(
    steps: tuple[int, ...], severity: str, relora_run: TinyRun
) -> None:
    for step in steps:
        path = model(relora_run, step).parent / "gradients.safetensors"
        edit(path, lambda name, value: 0 * value if name.startswith(NAME) else value)
    finding = of(relora_run.path, "gradient-zero")
    assert (finding.severity, finding.steps) == (severity, steps)
    assert finding.matrices == (f"{NAME}.weight",)


# steps of another run, identical and missing steps


def test_weights_of_another_run_in_the_middle_jump(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    write_calm(tmp_path, rng, steps=4)
    other = tmp_path / "other"
    write_calm(other, np.random.default_rng(5), steps=6)
    for step in (40, 50):
        (other / f"checkpoint-{step}").rename(tmp_path / f"checkpoint-{step}")
    for step in (0, 10, 20, 30):
        weights_at(other, step).unlink()
    found = diagnose(tmp_path)
    finding = only(found, "weights-jump")
    assert finding.steps == (40,) and abs(float(finding.numbers["cosine"] or 1)) < 0.2


def test_early_weights_may_turn(tmp_path: Path, rng: np.random.Generator) -> None:
    """The first interval of a training may be as large as the jump to another one."""
    write_step(tmp_path, 0, random_weights(np.random.default_rng(5)))
    weights = random_weights(rng)
    for step in (10, 20, 30, 40):
        weights = {n: (w + 0.1 * rng.normal(size=w.shape)).astype("f4") for n, w in weights.items()}
        write_step(tmp_path, step, weights)
    assert not diagnose(tmp_path)


def test_the_log_of_another_run_is_an_error(tmp_path: Path, rng: np.random.Generator) -> None:
    weights = random_weights(rng)
    for step, loss in ((10, 4.0), (20, 3.0)):
        moved = {name: value * (1 + step / 100) for name, value in weights.items()}
        write_step(tmp_path, step, moved, log=[{"step": 5, "loss": loss}])
    finding = of(tmp_path, "other-run")
    assert finding.severity == "error" and finding.steps == (20,)
    assert "3.0 at step 5" in finding.evidence


def test_steps_with_the_same_weights_are_named(tmp_path: Path, rng: np.random.Generator) -> None:
    write_calm(tmp_path, rng)
    save_file(load_file(weights_at(tmp_path, 20)), weights_at(tmp_path, 30))
    assert of(tmp_path, "identical-weights").steps == (20, 30)


def test_missing_steps_of_a_regular_series_are_named(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    write_calm(tmp_path, rng, steps=8)
    for step in (30, 60):
        weights_at(tmp_path, step).parent.rename(tmp_path / f"gone-{step}-away")
        weights = tmp_path / f"gone-{step}-away" / "model.safetensors"
        weights.unlink()
    finding = only(diagnose(tmp_path), "steps-missing")
    assert finding.steps == (30, 60) and finding.numbers["interval"] == 10


@pytest.mark.parametrize("steps", [(0, 1, 2, 4, 8, 16, 32), (0, 10, 20, 30, 40, 45), (0, 10, 30)])
def test_an_irregular_series_has_no_gap(
    steps: tuple[int, ...], tmp_path: Path, rng: np.random.Generator
) -> None:
    weights = random_weights(rng)
    for step in steps:
        moved = {name: (value * (1 + step / 1000)).astype("f4") for name, value in weights.items()}
        write_step(tmp_path, step, moved)
    assert not diagnose(tmp_path)


# what cannot be read


def test_a_step_that_cannot_be_read_is_an_error(tmp_path: Path, rng: np.random.Generator) -> None:
    write_calm(tmp_path, rng)
    path = weights_at(tmp_path, 20)
    path.write_text(f"version https://git-lfs.github.com/spec/v1\noid sha256:{'a' * 64}\nsize 9\n")
    finding = of(tmp_path, "step-unreadable")
    assert finding.steps == (20,) and "git-lfs pointer" in finding.evidence
    assert finding.remedy.startswith("Copy or download the files")


def test_a_missing_shard_is_an_error(tmp_path: Path, rng: np.random.Generator) -> None:
    write_calm(tmp_path, rng)
    path = weights_at(tmp_path, 20)
    tensors = load_file(path)
    first = path.with_name("model-00001-of-00002.safetensors")
    save_file(tensors, first)
    path.unlink()
    where = dict.fromkeys(tensors, first.name) | {"lost.weight": "model-00002-of-00002.safetensors"}
    index = {"metadata": {}, "weight_map": where}
    path.with_name("model.safetensors.index.json").write_text(json.dumps(index))
    finding = of(tmp_path, "step-unreadable")
    assert finding.steps == (20,) and "00002-of-00002" in finding.evidence


def test_a_checkpoint_that_is_being_written_is_a_note(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    write_calm(tmp_path, rng)
    write_model(tmp_path / "tmp-checkpoint-60", random_weights(rng))
    finding = of(tmp_path, "step-unfinished")
    assert finding.severity == "note" and "tmp-checkpoint-60" in finding.evidence


def test_weights_that_end_early_are_found(tmp_path: Path, rng: np.random.Generator) -> None:
    """The header is whole, and what it promises is not there."""
    write_calm(tmp_path, rng)
    with weights_at(tmp_path, 20).open("r+b") as file:
        file.truncate(weights_at(tmp_path, 20).stat().st_size - 64)
    (finding,) = diagnose(tmp_path)
    assert finding.severity == "error" and finding.steps == (20,)


def test_what_cannot_be_read_for_one_reason_is_one_finding(tmp_path: Path) -> None:
    """Quantised weights of two layers at two steps; steps without weights are not identical."""
    for step in (100, 200):
        tensors = {}
        for layer in (0, 1):
            name = f"model.layers.{layer}.mlp.up_proj"
            tensors[f"{name}.weight"] = np.ones((64, 8), np.uint32)
            tensors[f"{name}.scales"] = tensors[f"{name}.biases"] = np.ones((64, 1), np.float32)
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        save_file(tensors, folder / "model.safetensors")
        config = {"model_type": "llama", "quantization": {"bits": 4, "group_size": 64}}
        (folder / "config.json").write_text(json.dumps(config))
    finding = of(tmp_path, "step-unreadable")
    assert finding.steps == (100, 200) and len(finding.matrices) == 2
    assert "quantised" in finding.evidence
    assert "docs/checkpoints.md" in finding.remedy  # another copy of the file would not help


# numbers in the tensors


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_numbers_that_are_not_finite_are_found(
    value: float, tmp_path: Path, rng: np.random.Generator
) -> None:
    write_calm(tmp_path, rng)

    def spoil(name: str, tensor: np.ndarray) -> np.ndarray:
        if name.startswith(NAME):
            tensor[3, 5] = value
        return tensor

    edit(weights_at(tmp_path, 50), spoil)
    finding = only(diagnose(tmp_path), "non-finite")
    assert (finding.steps, finding.matrices) == ((50,), (f"{NAME}.weight",))


def test_values_in_fewer_bits_than_their_file_are_noted(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    write_calm(tmp_path, rng)
    for step in range(0, 60, 10):
        edit(
            weights_at(tmp_path, step),
            lambda name, value: (
                value.astype(np.float16).astype(np.float32) if name.startswith(NAME) else value
            ),
        )
    finding = of(tmp_path, "fewer-bits")
    assert finding.severity == "note" and finding.matrices == (f"{NAME}.weight",)
    assert finding.numbers["significant_bits"] == 11
    assert len(finding.steps) == 6


def test_a_ternary_weight_is_not_short(tmp_path: Path, rng: np.random.Generator) -> None:
    write_calm(tmp_path, rng)
    for step in range(0, 60, 10):
        sign = np.random.default_rng(step)
        edit(
            weights_at(tmp_path, step),
            lambda name, value, sign=sign: (  # type: ignore[misc]
                sign.integers(-1, 2, value.shape).astype("f4") if name.startswith(NAME) else value
            ),
        )
    assert codes(diagnose(tmp_path)) <= {"weights-jump"}


def test_a_large_tensor_with_zeros_in_its_middle_is_not_zero(relora_run: TinyRun) -> None:
    known = Evidence.of(open_run(relora_run.path))
    values = np.zeros((300, 300), np.float32)
    for is_zero_now in (True, False):
        save_file({"x": values}, relora_run.path / "x.safetensors")
        tensor = open_tensors(relora_run.path / "x.safetensors")["x"]
        assert is_zero(known, tensor, 0) == is_zero_now
        values[0, 0] = 1.0


def test_weights_that_turn_in_every_interval_do_not_jump(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    for step in range(0, 60, 10):
        write_step(tmp_path, step, random_weights(rng))
    assert not diagnose(tmp_path)


@pytest.mark.parametrize(("reason", "severity"), [("damaged", "error"), ("quantised", "warning")])
def test_a_tensor_that_a_check_could_not_read_is_named(
    reason: str, severity: str, relora_run: TinyRun
) -> None:
    known = Evidence.of(open_run(relora_run.path))
    known.unread.append((Skip("w.pt", "x", reason, "cannot be read"), 20))
    (finding,) = check_readable(known)
    assert isinstance(finding, Finding)
    assert (finding.severity, finding.steps, finding.matrices) == (severity, (20,), ("x",))
