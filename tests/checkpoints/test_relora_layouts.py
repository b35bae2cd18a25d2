"""Folders as Guitaricet/relora, pico-train and pico-relora write them, with their real names."""

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from rankscope.checkpoints.contents import Contents, restarts_between
from rankscope.checkpoints.discovery import open_run, open_runs
from rankscope.checkpoints.layouts import guitaricet_relora as relora
from rankscope.checkpoints.layouts import layout_of, pico
from rankscope.checkpoints.layouts.pico import merges_before
from rankscope.checkpoints.options import DEFAULT
from rankscope.components.recipes import Weight
from rankscope.errors import RankscopeError
from tests.conftest import CONFIG, MODULES, RANK, Tensors, random_factors, random_weights

ALPHA = 6.0
LLAMA_MODULE = "model.layers.0.self_attn.q_proj"
RELORA = {
    "r": RANK,
    "lora_alpha": ALPHA,
    "lora_dropout": 0.1,
    "target_modules": ["attn", "attention", "mlp"],
    "keep_original_weights": False,
    "lora_only": False,  # as it is always written, whatever was trained
    "trainable_scaling": False,
    "quantize": None,
    "use_double_quant": False,
}
STATE = {
    "global_step": 4000,
    "update_step": 2000,
    "tokens_seen": 1024,
    "tokens_seen_before": 512,
    "n_lora_restarts": 3,
    "n_optimizer_resets": 3,
    "update_time": 0.5,
}


def wrapped(rng: np.random.Generator, weights: Tensors, *, trained: float | None = None) -> Tensors:
    """State of a Llama model whose projections are those of Guitaricet/relora."""
    tensors = dict(weights)
    for module, (left, right) in random_factors(rng).items():
        tensors[f"{module}.lora_A.weight"] = right.astype(np.float32)
        tensors[f"{module}.lora_B.weight"] = left.astype(np.float32)
        if trained is not None:
            tensors[f"{module}.scaling"] = np.array([trained], np.float32)
    return tensors


def as_bin(tensors: Tensors, folder: Path) -> None:
    held = {name: torch.from_numpy(np.array(value)) for name, value in tensors.items()}
    torch.save(held, folder / "pytorch_model.bin")


def as_safetensors(tensors: Tensors, folder: Path) -> None:
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


Writer = Callable[[Tensors, Path], None]


def write_relora(folder: Path, tensors: Tensors, *, write: Writer = as_safetensors) -> None:
    folder.mkdir(parents=True)
    write(tensors, folder)
    (folder / "config.json").write_text(json.dumps(CONFIG))
    (folder / "relora_config.json").write_text(json.dumps(RELORA, indent=4))
    (folder / "training_state.json").write_text(json.dumps(STATE))
    torch.save({"optimizer": {}, "update_step": 2000}, folder / "optimizer.pt")


def effective(contents: Contents, name: str) -> np.ndarray:
    parameter = contents.parameters[name]
    assert parameter.tensor is not None
    return np.asarray(Weight(parameter.tensor, parameter.adapter).read().values)


@pytest.mark.parametrize("write", [as_bin, as_safetensors])
@pytest.mark.parametrize("prefix", ["", "wrapped_model.", "module.wrapped_model."])
def test_a_relora_folder_is_frozen_weights_with_their_scaled_adapters(
    write: Writer, prefix: str, tmp_path: Path, rng: np.random.Generator
) -> None:
    tensors = wrapped(rng, random_weights(rng))
    write_relora(tmp_path / "model_2000", {prefix + n: t for n, t in tensors.items()}, write=write)
    run = open_run(tmp_path)
    assert [(c.step, c.step_source, c.layout) for c in run] == [
        (2000, "training_state.json", "relora")
    ]
    contents = run[2000].contents
    assert contents.restarts == 3 and contents.family == "llama-like" and not contents.skips
    assert {n for n, p in contents.parameters.items() if p.adapter} == {
        f"{module}.weight" for module in MODULES
    }
    assert set(contents.parameters) == {
        n for n, t in tensors.items() if t.ndim == 2 and "lora_" not in n
    }
    for module in MODULES:
        factors = (tensors[f"{module}.lora_{x}.weight"].astype(float) for x in "BA")
        expected = tensors[f"{module}.weight"] + ALPHA / RANK * np.linalg.multi_dot([*factors])
        assert effective(contents, f"{module}.weight") == pytest.approx(expected, abs=1e-12)
    base = contents.parameters[f"{LLAMA_MODULE}.weight"].tensor
    assert base is not None and (base.read() == tensors[f"{LLAMA_MODULE}.weight"]).all()


def test_a_trained_scale_is_the_tanh_of_what_is_stored(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    write_relora(tmp_path / "model_2000", wrapped(rng, random_weights(rng), trained=0.75))
    contents = relora.read(tmp_path / "model_2000", DEFAULT)
    scales = {p.adapter.scale for p in contents.parameters.values() if p.adapter}
    assert scales == {math.tanh(0.75)}
    assert not any("scaling" in name for name in (*contents.parameters, *contents.left_out))


def test_without_frozen_weights_the_adapters_stand_alone(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    tensors = wrapped(rng, random_weights(rng))
    for module in MODULES:
        del tensors[f"{module}.weight"]
    write_relora(tmp_path / "model_2000", tensors)
    contents = relora.read(tmp_path / "model_2000", DEFAULT)
    query = contents.parameters[f"{LLAMA_MODULE}.weight"]
    assert query.tensor is None and query.adapter is not None and query.role == "q"
    assert query.shape == MODULES[LLAMA_MODULE]
    assert query.adapter.scale == ALPHA / RANK


@pytest.mark.parametrize("dtype", ["uint8", "int8"])
def test_an_adapter_on_a_quantised_weight_stands_alone(
    dtype: str, tmp_path: Path, rng: np.random.Generator
) -> None:
    tensors = dict(wrapped(rng, random_weights(rng)))
    tensors[f"{LLAMA_MODULE}.weight"] = np.ones((128, 1), dtype)  # type: ignore[assignment]
    tensors[f"{LLAMA_MODULE}.weight.absmax"] = np.ones(2, np.float32)
    tensors[f"{LLAMA_MODULE}.weight.quant_map"] = np.ones(16, np.float32)
    write_relora(tmp_path / "model_2000", tensors)
    contents = relora.read(tmp_path / "model_2000", DEFAULT)
    assert [skip.reason for skip in contents.skips] == ["quantised"]
    query = contents.parameters[f"{LLAMA_MODULE}.weight"]
    assert query.tensor is None and query.adapter is not None


def test_a_full_rank_warm_up_is_a_hugging_face_folder(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    folder = tmp_path / "model_1000"
    write_relora(folder, random_weights(rng), write=as_bin)
    (folder / "relora_config.json").unlink()
    (folder / "training_state.json").unlink()
    run = open_run(tmp_path)
    assert [(c.step, c.layout) for c in run] == [(1000, "huggingface")]
    assert run[1000].contents.restarts is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lora_A": None}, "has lora_B.weight but no lora_A.weight"),
        ({"lora_B": None}, "has lora_A.weight but no lora_B.weight"),
        ({"lora_B": (16, 3)}, "do not fit"),
        ({"lora_A": (0, 16), "lora_B": (16, 0)}, "do not fit"),
        ({"scaling": (2,)}, "its scale is [2], not one number"),
    ],
)
def test_an_incomplete_adapter_is_reported_and_its_weight_is_read(
    change: dict[str, tuple[int, ...] | None], message: str, tmp_path: Path,
    rng: np.random.Generator,
) -> None:  # fmt: skip
    tensors = wrapped(rng, random_weights(rng))
    for part, shape in change.items():
        name = f"{LLAMA_MODULE}.{part}" + ("" if part == "scaling" else ".weight")
        tensors.pop(name, None)
        if shape is not None:
            tensors[name] = np.ones(shape, np.float32)
    write_relora(tmp_path / "model_2000", tensors)
    contents = relora.read(tmp_path / "model_2000", DEFAULT)
    (skip,) = contents.skips
    assert skip.reason == "adapter-incomplete" and skip.tensor == LLAMA_MODULE
    assert message in skip.message and skip.path.endswith("model.safetensors")
    assert contents.parameters[f"{LLAMA_MODULE}.weight"].adapter is None
    assert not any("lora_" in name for name in contents.parameters)


@pytest.mark.parametrize("alpha", [None, "32", True, [8], math.nan])
def test_an_alpha_that_is_not_a_number_is_an_error_of_its_file(
    alpha: object, tmp_path: Path, rng: np.random.Generator
) -> None:
    folder = tmp_path / "model_2000"
    write_relora(folder, wrapped(rng, random_weights(rng)))
    (folder / "relora_config.json").write_text(json.dumps(RELORA | {"lora_alpha": alpha}))
    with pytest.raises(RankscopeError, match=r"relora_config.json: lora_alpha is .*, not a number"):
        relora.read(folder, DEFAULT)


@pytest.mark.parametrize("text", ["{", "[]", '{"r": '])
def test_a_damaged_config_is_named(text: str, tmp_path: Path, rng: np.random.Generator) -> None:
    folder = tmp_path / "model_2000"
    write_relora(folder, wrapped(rng, random_weights(rng)))
    (folder / "relora_config.json").write_text(text)
    with pytest.raises(RankscopeError, match=r"relora_config\.json"):
        relora.read(folder, DEFAULT)


@pytest.mark.parametrize(
    ("before", "now", "expected"),
    [(3, 5, 2), (3, 3, 0), (None, 4, 4), (5, 2, 2), (5, None, 0), (None, None, 0)],
)
def test_restarts_are_counted_where_a_resumed_run_starts_from_zero(
    before: int | None, now: int | None, expected: int
) -> None:
    earlier, later = (Contents("relora", "llama-like", {}, restarts=n) for n in (before, now))
    assert restarts_between(earlier, later) == expected


# pico

WIDTH, HIDDEN, HEADS, KV_HEADS = 16, 24, 4, 2
PICO_SHAPES = {
    "attention.q_proj": (WIDTH, WIDTH),
    "attention.k_proj": (WIDTH // 2, WIDTH),
    "attention.v_proj": (WIDTH // 2, WIDTH),
    "attention.o_proj": (WIDTH, WIDTH),
    "swiglu.w_0": (HIDDEN, WIDTH),
    "swiglu.w_1": (HIDDEN, WIDTH),
    "swiglu.w_2": (WIDTH, HIDDEN),
}
PICO_MODULES = {f"layers.{i}.{n}": shape for i in range(2) for n, shape in PICO_SHAPES.items()}
PICO_CONFIG = {
    "model_type": "pico_decoder",
    "d_model": WIDTH,
    "n_layers": 2,
    "vocab_size": 20,
    "max_seq_len": 32,
    "attention_n_heads": HEADS,
    "attention_n_kv_heads": KV_HEADS,
    "activation_hidden_dim": HIDDEN,
    "relora": None,
}
PICO_RELORA = {
    "target_modules": ["attention", "swiglu"],
    "reset_frequency": 2000,
    "r": RANK,
    "lora_alpha": ALPHA,
    "lora_dropout": 0.1,
    "keep_original_weights": True,
    "lora_only": False,
    "trainable_scaling": False,
}
PICO_MODULE = "layers.1.attention.v_proj"


def pico_model(rng: np.random.Generator, *, trained: float | None = None, rank: int = 0) -> Tensors:
    """State of a pico model without the prefix of the Hugging Face wrapper."""
    tensors: Tensors = {
        "embedding_proj.weight": rng.normal(size=(20, WIDTH)).astype(np.float32),
        "de_embedding_proj.weight": rng.normal(size=(20, WIDTH)).astype(np.float32),
        "output_norm.weight": np.ones(WIDTH, np.float32),
        "layers.0.attention_norm.weight": np.ones(WIDTH, np.float32),
    }
    for module, (rows, columns) in PICO_MODULES.items():
        tensors[f"{module}.weight"] = rng.normal(size=(rows, columns)).astype(np.float32)
        if rank:
            tensors[f"{module}.A_lora.weight"] = rng.normal(size=(rank, columns)).astype("f4")
            tensors[f"{module}.B_lora.weight"] = rng.normal(size=(rows, rank)).astype("f4")
        if trained is not None:
            tensors[f"{module}.s"] = np.array([trained], np.float32)
    return tensors


def write_pico(folder: Path, tensors: Tensors, *, config: dict[str, object]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    prefix = pico.PREFIXES[str(config["model_type"])]
    as_safetensors({prefix + name: value for name, value in tensors.items()}, folder)
    (folder / "config.json").write_text(json.dumps(config))


def write_dynamics(folder: Path, file: str, found: Tensors, *, prefix: str) -> None:
    (folder / "learning_dynamics").mkdir(exist_ok=True)
    held = {prefix + module: torch.from_numpy(value) for module, value in found.items()}
    torch.save(held, folder / "learning_dynamics" / file)


def write_settings(run: Path, *, warmup: int) -> None:
    run.mkdir(parents=True, exist_ok=True)
    lines = ["training:", "  optimization:", f"    lr_warmup_steps: {warmup}", "model:"]
    lines += [f"  {key}: {value}" for key, value in PICO_CONFIG.items() if isinstance(value, int)]
    (run / "training_config.yaml").write_text("\n".join(lines))


def test_a_run_of_pico_opens_as_one_run_of_its_steps(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    run = tmp_path / "runs" / "pico-decoder-small-1"
    for step in (0, 1000, 2000):
        write_pico(run / "checkpoints" / f"step_{step}", pico_model(rng), config=PICO_CONFIG)
    (run / "checkpoints" / "latest").symlink_to("step_2000", target_is_directory=True)
    (run / "eval_results").mkdir()
    (run / "eval_results" / "step_1000.json").write_text('{"paloma": 60.0}')
    (run / "logs").mkdir()
    write_settings(run, warmup=2500)
    for place in (run, run / "checkpoints", tmp_path / "runs"):
        opened = open_run(place)
        assert opened.steps == (0, 1000, 2000) and opened.path == run
        assert {checkpoint.layout for checkpoint in opened} == {"pico"}
    contents = opened[1000].contents
    assert contents.restarts is None and not contents.skips and contents.family == "pico"
    heads = contents.heads
    assert heads is not None and (heads.count, heads.kv_count, heads.size) == (HEADS, KV_HEADS, 4)


@pytest.mark.parametrize("model_type", ["pico_relora_decoder", "relora-pico"])
@pytest.mark.parametrize("trained", [None, 1.0, -0.5])
def test_adapters_of_pico_relora_are_on_their_frozen_weights(
    model_type: str, trained: float | None, tmp_path: Path, rng: np.random.Generator
) -> None:
    tensors = pico_model(rng, trained=trained, rank=RANK)
    config = PICO_CONFIG | {"model_type": model_type, "relora": PICO_RELORA}
    write_pico(tmp_path / "step_2000", tensors, config=config)
    contents = open_run(tmp_path)[2000].contents
    prefix = pico.PREFIXES[model_type]
    scale = ALPHA / RANK if trained is None else math.tanh(trained)
    roles = {}
    for module in PICO_MODULES:
        parameter = contents.parameters[f"{prefix}{module}.weight"]
        roles[module.rpartition(".")[2]] = parameter.role
        a, b = (tensors[f"{module}.{x}_lora.weight"].astype(float) for x in "AB")
        expected = tensors[f"{module}.weight"] + scale * b @ a
        assert effective(contents, parameter.name) == pytest.approx(expected, abs=1e-12)
    assert roles == {
        **{"q_proj": "q", "k_proj": "k", "v_proj": "v", "o_proj": "o"},
        **{"w_0": "gate", "w_1": "up", "w_2": "down"},
    }
    assert len(contents.parameters) == len(PICO_MODULES) + 2 and not contents.skips


@pytest.mark.parametrize("prefix", ["_forward_module.module.", "_forward_module.", ""])
def test_gradients_belong_to_the_weights_of_their_modules(
    prefix: str, tmp_path: Path, rng: np.random.Generator
) -> None:
    write_pico(tmp_path / "step_1000", pico_model(rng), config=PICO_CONFIG)
    ends = ("attention.v_proj", "attention.o_proj", "swiglu.w_2")
    names = [module for module in PICO_MODULES if module.endswith(ends)]
    found = {m: rng.normal(size=PICO_MODULES[m]).astype(np.float32) for m in names}
    wrong = {m: value + 1 for m, value in found.items()}
    write_dynamics(tmp_path / "step_1000", "train_gradients.pt", found, prefix=prefix)
    write_dynamics(tmp_path / "step_1000", "val_gradients.pt", wrong, prefix=prefix)
    contents = open_run(tmp_path)[1000].contents
    assert set(contents.gradients) == {f"pico_decoder.{module}.weight" for module in names}
    for module, value in found.items():
        gradient = contents.gradients[f"pico_decoder.{module}.weight"]
        assert gradient.tensor is not None and (gradient.tensor.read() == value).all()
        weight = contents.parameters[gradient.name]
        assert (gradient.role, gradient.layer) == (weight.role, weight.layer)


def test_validation_gradients_are_used_where_there_are_no_others(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    folder = tmp_path / "step_1000"
    write_pico(folder, pico_model(rng), config=PICO_CONFIG)
    value = rng.normal(size=PICO_MODULES[PICO_MODULE]).astype(np.float32)
    write_dynamics(folder, "val_gradients.pt", {PICO_MODULE: value}, prefix="_forward_module.")
    (gradient,) = pico.read(folder, DEFAULT).gradients.values()
    assert gradient.tensor is not None and (gradient.tensor.read() == value).all()


def test_a_gradient_without_its_weight_is_reported(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    folder = tmp_path / "step_1000"
    write_pico(folder, pico_model(rng), config=PICO_CONFIG)
    found = {"layers.9.swiglu.w_2": np.ones((4, 4), np.float32), PICO_MODULE: np.ones((3, 3), "f4")}
    write_dynamics(folder, "train_gradients.pt", found, prefix="_forward_module.")
    contents = pico.read(folder, DEFAULT)
    assert not contents.gradients
    assert [skip.reason for skip in contents.skips] == ["gradient-misfit"] * 2


def test_unreadable_gradients_do_not_cost_the_weights(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    folder = tmp_path / "step_1000"
    write_pico(folder, pico_model(rng), config=PICO_CONFIG)
    write_dynamics(folder, "train_gradients.pt", {}, prefix="")
    (folder / "learning_dynamics" / "train_gradients.pt").write_bytes(b"PK\x03\x04 cut")
    contents = pico.read(folder, DEFAULT)
    assert contents.parameters and not contents.gradients and len(contents.skips) == 1
    assert contents.skips[0].path.endswith("train_gradients.pt")


def fabric_state(tensors: Tensors, step: int) -> dict[str, object]:
    numpy_state = np.random.RandomState(0).get_state()
    return {
        "_model": {name: torch.from_numpy(value) for name, value in tensors.items()},
        "_optimizer": {"state": {0: {"exp_avg": torch.zeros(64, 64)}}, "param_groups": []},
        "_lr_scheduler": {"last_epoch": step},
        "_checkpoint_step": step,
        "_rng_states": {"torch": torch.get_rng_state(), "numpy": numpy_state},
    }


@pytest.mark.parametrize(
    ("name", "source"), [("step_300", "folder"), ("a1b2c3", "_checkpoint_step")]
)
def test_the_state_to_resume_from_serves_where_there_is_no_model(
    name: str, source: str, tmp_path: Path, rng: np.random.Generator
) -> None:
    tensors = pico_model(rng, rank=RANK)
    state = tmp_path / "run" / "checkpoints" / name / "fabric_state"
    state.mkdir(parents=True)
    torch.save(fabric_state(tensors, 300), state / "checkpoint.pt")
    config = PICO_CONFIG | {"relora": PICO_RELORA}
    (state.parent / "config.json").write_text(json.dumps(config))
    run = open_run(tmp_path / "run")
    assert [(c.step, c.step_source, c.layout) for c in run] == [(300, source, "pico")]
    contents = run[300].contents
    weight = contents.parameters[f"pico_decoder.{PICO_MODULE}.weight"]
    assert weight.tensor is not None and weight.adapter is not None
    assert (weight.tensor.read() == tensors[f"{PICO_MODULE}.weight"]).all()
    assert not any("exp_avg" in name for name in contents.parameters)


def test_the_runs_config_gives_heads_where_the_checkpoint_has_none(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    write_settings(tmp_path, warmup=0)
    state = tmp_path / "checkpoints" / "step_10" / "fabric_state"
    state.mkdir(parents=True)
    torch.save(fabric_state(pico_model(rng), 10), state / "checkpoint.pt")
    heads = open_run(tmp_path)[10].contents.heads
    assert heads is not None and (heads.count, heads.kv_count) == (HEADS, KV_HEADS)


def test_deepspeed_weights_are_read_where_one_file_has_them_all(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    tensors = pico_model(rng)
    state = tmp_path / "step_10" / "fabric_state" / "checkpoint"
    state.mkdir(parents=True)
    module = {name: torch.from_numpy(value) for name, value in tensors.items()}
    torch.save({"module": module, "_checkpoint_step": 10}, state / "mp_rank_00_model_states.pt")
    weight = open_run(tmp_path)[10].contents.parameters[f"pico_decoder.{PICO_MODULE}.weight"]
    assert weight.tensor is not None
    assert (weight.tensor.read() == tensors[f"{PICO_MODULE}.weight"]).all()
    torch.save({}, state / "mp_rank_01_model_states.pt")
    with pytest.raises(RankscopeError, match=r"fabric_state: .*2 slices.*zero_to_fp32"):
        pico.read(tmp_path / "step_10", DEFAULT)


@pytest.mark.parametrize("every", [1, 2, 3, 10, 1000])
@pytest.mark.parametrize("warmup", [0, 1, 2, 9, 25])
def test_merges_are_counted_by_the_rule_of_the_trainer(every: int, warmup: int) -> None:
    done = 0
    for step in range(1, 70):  # the checkpoint of a step is saved, then it is merged
        assert merges_before(step, every=every, warmup=warmup) == done
        done += step > warmup and step % every == 1


@pytest.mark.parametrize(("warmup", "expected"), [(2000, 3), (3000, 2), (None, 4)])
def test_a_pico_checkpoint_knows_how_many_merges_preceded_it(
    warmup: int | None, expected: int, tmp_path: Path, rng: np.random.Generator
) -> None:
    config = PICO_CONFIG | {"model_type": "pico_relora_decoder", "relora": PICO_RELORA}
    folder = tmp_path / "checkpoints" / "step_8000"
    write_pico(folder, pico_model(rng, rank=RANK), config=config)
    if warmup is not None:
        write_settings(tmp_path, warmup=warmup)
    assert open_run(tmp_path)[8000].contents.restarts == expected
    config["relora"] = PICO_RELORA | {"lora_only": True}
    (folder / "config.json").write_text(json.dumps(config))
    assert open_run(tmp_path)[8000].contents.restarts == 0


def test_settings_that_are_damaged_do_not_hide_the_checkpoint(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    config = PICO_CONFIG | {"relora": PICO_RELORA}
    write_pico(tmp_path / "checkpoints" / "step_2001", pico_model(rng, rank=RANK), config=config)
    (tmp_path / "training_config.yaml").write_text("training: !!python/object:os.system {}")
    assert open_run(tmp_path)[2001].contents.restarts == 1


def test_other_models_are_not_taken_for_these(tmp_path: Path, rng: np.random.Generator) -> None:
    for name, text in (
        ("plain", json.dumps(CONFIG)),
        ("damaged", "{"),
        ("odd", json.dumps({"model_type": ["pico"]})),
    ):
        folder = tmp_path / name
        folder.mkdir()
        as_safetensors(random_weights(rng), folder)
        (folder / "config.json").write_text(text)
        assert layout_of(folder) == "huggingface"
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "relora_config.json").write_text("{}")
    assert layout_of(tmp_path / "empty") is None
    assert len(open_runs([tmp_path])) == 3
