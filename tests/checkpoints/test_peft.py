"""Adapters of PEFT are read as PEFT applies them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from rankscope.checkpoints.contents import Contents, Parameter
from rankscope.checkpoints.discovery import open_run
from rankscope.checkpoints.layouts import peft as layout
from rankscope.checkpoints.options import DEFAULT
from rankscope.errors import RankscopeError
from tests.conftest import random_factors, random_weights, write_adapter, write_model

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
peft = pytest.importorskip("peft")

pytestmark = pytest.mark.filterwarnings("ignore")  # of the libraries at each other

WIDTH, HEADS, VOCABULARY = 16, 4, 32
Make = Callable[[], Any]


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    torch.manual_seed(0)


def llama() -> Any:
    return transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            hidden_size=WIDTH, intermediate_size=24, num_hidden_layers=2, vocab_size=VOCABULARY,
            num_attention_heads=HEADS, num_key_value_heads=2,
        )
    )  # fmt: skip


def gpt2() -> Any:
    return transformers.GPT2LMHeadModel(
        transformers.GPT2Config(
            n_embd=WIDTH, n_layer=2, n_head=HEADS, vocab_size=VOCABULARY, n_positions=8,
            bos_token_id=0, eos_token_id=0,
        )
    )  # fmt: skip


def neox() -> Any:
    return transformers.GPTNeoXForCausalLM(
        transformers.GPTNeoXConfig(
            hidden_size=WIDTH, intermediate_size=24, num_hidden_layers=2, vocab_size=VOCABULARY,
            num_attention_heads=HEADS,
        )
    )  # fmt: skip


def mixtral() -> Any:
    return transformers.MixtralForCausalLM(
        transformers.MixtralConfig(
            hidden_size=WIDTH, intermediate_size=24, num_hidden_layers=1, vocab_size=VOCABULARY,
            num_attention_heads=HEADS, num_key_value_heads=2, num_local_experts=3,
        )
    )  # fmt: skip


def adapted(folder: Path, model: Any, name: str = "default", **config: Any) -> Any:
    """Save a model in ``base`` and an adapter on it in ``run/checkpoint-3``; gives the latter."""
    model.save_pretrained(folder / "base")
    config = {"r": 2, "lora_alpha": 3, "init_lora_weights": False, **config}
    model = type(model).from_pretrained(folder / "base")
    found = peft.get_peft_model(model, peft.LoraConfig(**config), adapter_name=name)
    found.save_pretrained(folder / "run" / "checkpoint-3")
    return found


def read(folder: Path) -> Contents:
    return open_run(folder / "run")[3].contents


def change(config: Path, **entries: Any) -> None:
    config.write_text(json.dumps(json.loads(config.read_text()) | entries))


def effective(parameter: Parameter) -> NDArray[Any]:
    assert parameter.tensor is not None
    return parameter.tensor.read() + delta(parameter)


def delta(parameter: Parameter) -> NDArray[Any]:
    if parameter.adapter is None:
        return np.zeros(parameter.shape)
    adapter = parameter.adapter
    assert adapter.shape == parameter.shape
    left, right = (factor.read().astype(np.float64) for factor in (adapter.lora_B, adapter.lora_A))
    return adapter.scale * left @ right


def merged(model: Any) -> dict[str, NDArray[Any]]:
    state = model.merge_and_unload().state_dict()
    return {name: tensor.float().numpy() for name, tensor in state.items()}


def reasons(contents: Contents) -> set[str]:
    return {skip.reason for skip in contents.skips}


def test_llama_with_everything_is_what_peft_merges(
    tmp_path: Path,
) -> None:
    model = adapted(
        tmp_path, llama(), target_modules=["q_proj", "v_proj", "down_proj", "embed_tokens"],
        modules_to_save=["lm_head"], use_rslora=True, rank_pattern={"v_proj": 4, "1.mlp.*": 3},
        alpha_pattern={r"layers\.1\..*": 5, "q_proj": 7},
    )  # fmt: skip
    with torch.no_grad():
        model.base_model.model.lm_head.modules_to_save["default"].weight.add_(1.0)
    model.save_pretrained(tmp_path / "run" / "checkpoint-3")
    contents, truth = read(tmp_path), merged(model)
    matrices = {name: value for name, value in truth.items() if value.ndim == 2}
    assert set(contents.parameters) == set(matrices) and not contents.skips
    assert sum(p.adapter is not None for p in contents.parameters.values()) == 7
    for name, parameter in contents.parameters.items():
        assert effective(parameter) == pytest.approx(matrices[name], abs=1e-5)


@pytest.mark.parametrize("has_prefix", [True, False])
@pytest.mark.slow
def test_gpt2_fits_with_and_without_its_prefix(has_prefix: bool, tmp_path: Path) -> None:
    model = adapted(tmp_path, gpt2(), target_modules=["c_attn", "c_proj", "c_fc", "wte"])
    assert json.loads((tmp_path / "run/checkpoint-3/adapter_config.json").read_text())[
        "fan_in_fan_out"
    ]
    if not has_prefix:  # as on the hub, where the weights are those of GPT2Model
        path = tmp_path / "base" / "model.safetensors"
        save_file({n.removeprefix("transformer."): w for n, w in load_file(path).items()}, path)
    contents, truth = read(tmp_path), merged(model)
    assert not contents.skips
    prefix = "transformer." if has_prefix else ""
    for layer in range(2):
        block = f"h.{layer}."
        rows = np.split(truth[f"transformer.{block}attn.c_attn.weight"].T, 3)
        for role, expected in zip("qkv", rows, strict=True):
            part = contents.parameters[f"{prefix}{block}attn.c_attn.weight[{role}]"]
            assert part.adapter is not None and part.role == role
            assert effective(part) == pytest.approx(expected, abs=1e-5)
        for name in ("attn.c_proj", "mlp.c_fc", "mlp.c_proj"):
            found = effective(contents.parameters[f"{prefix}{block}{name}.weight"])
            expected = truth[f"transformer.{block}{name}.weight"].T
            assert found == pytest.approx(expected, abs=1e-5)
    embedding = contents.parameters[f"{prefix}wte.weight"]
    assert effective(embedding) == pytest.approx(truth["transformer.wte.weight"], abs=1e-5)


def test_parts_of_neox_are_rows_of_pefts_delta(tmp_path: Path) -> None:
    model = adapted(tmp_path, neox(), target_modules=["query_key_value", "dense_4h_to_h"])
    contents = read(tmp_path)
    for layer in range(2):
        place = f"gpt_neox.layers.{layer}.attention.query_key_value"
        whole = model.base_model.model.get_submodule(place).get_delta_weight("default")
        heads = whole.detach().numpy().reshape(HEADS, 3, WIDTH // HEADS, WIDTH)
        for i, role in enumerate("qkv"):
            found = delta(contents.parameters[f"{place}.weight[{role}]"])
            assert found == pytest.approx(heads[:, i].reshape(WIDTH, WIDTH), abs=1e-6)
    assert "neox" in contents.family


@pytest.mark.parametrize(
    "config",
    [
        {"lora_alpha": 32, "use_rslora": True},
        {"alpha_pattern": {"q_proj": 4, r".*": 6}},
        {"alpha_pattern": {"proj": 4, r"self_attn\.q_proj": 6, "mlp": 9}},
        {"alpha_pattern": {r"layers\.(0|2)\.self_attn\..*": 4}, "rank_pattern": {"q_proj": 1}},
        {"alpha_pattern": {"^model.layers.1.mlp.up_proj": 5}, "use_rslora": True},
    ],
)
@pytest.mark.slow
def test_scales_and_ranks_are_those_of_peft(config: dict[str, Any], tmp_path: Path) -> None:
    adapted(tmp_path, llama(), target_modules=["q_proj", "up_proj"], **config)
    # As loaded: PEFT sorts the patterns when it writes them, which changes the first match.
    base = transformers.LlamaForCausalLM.from_pretrained(tmp_path / "base")
    model = peft.PeftModel.from_pretrained(base, str(tmp_path / "run" / "checkpoint-3"))
    found = {name: p.adapter for name, p in read(tmp_path).parameters.items() if p.adapter}
    assert len(found) == 4
    for name, adapter in found.items():
        layer = model.base_model.model.get_submodule(name.removesuffix(".weight"))
        assert adapter.scale == pytest.approx(layer.scaling["default"])
        assert adapter.rank == layer.r["default"]


def test_names_of_a_live_state_dict_are_understood(tmp_path: Path) -> None:
    model = adapted(
        tmp_path, llama(), target_modules=["q_proj", "embed_tokens"], modules_to_save=["lm_head"]
    )
    path = tmp_path / "run" / "checkpoint-3" / "adapter_model.safetensors"
    save_file({name: t.numpy().copy() for name, t in model.state_dict().items()}, path)
    (tmp_path / "base" / "config.json").unlink()
    contents = read(tmp_path)
    assert reasons(contents) == set()
    truth = merged(model)
    for name, parameter in contents.parameters.items():
        assert effective(parameter) == pytest.approx(truth[name], abs=1e-5)
    assert set(contents.parameters) == {name for name in truth if truth[name].ndim == 2}


def test_a_named_adapter_is_in_a_folder_of_the_checkpoint(tmp_path: Path) -> None:
    adapted(tmp_path, llama(), name="mine", target_modules=["q_proj"])
    assert not (tmp_path / "run" / "checkpoint-3" / "adapter_config.json").exists()
    contents = read(tmp_path)
    assert sum(p.adapter is not None for p in contents.parameters.values()) == 2


def test_an_adapter_below_the_unnamed_one_is_named(tmp_path: Path) -> None:
    model = adapted(tmp_path, llama(), target_modules=["q_proj"])
    model.add_adapter("second", peft.LoraConfig(r=4, target_modules=["q_proj", "v_proj"]))
    model.save_pretrained(tmp_path / "run" / "checkpoint-3")
    contents = read(tmp_path)
    assert {p.adapter.rank for p in contents.parameters.values() if p.adapter} == {2}
    (note,) = (note for note in contents.notes if note.reason == "other-adapter")
    assert "second" in note.message


def test_one_of_two_adapters_in_a_file_is_read(tmp_path: Path) -> None:
    model = adapted(tmp_path, llama(), target_modules=["q_proj"])
    model.add_adapter("second", peft.LoraConfig(r=4, target_modules=["q_proj"]))
    path = tmp_path / "run" / "checkpoint-3" / "adapter_model.safetensors"
    factors = {n: t.numpy() for n, t in model.state_dict().items() if ".lora_" in n}
    save_file(factors, path)
    contents = read(tmp_path)
    assert [(s.tensor, s.reason) for s in contents.skips] == [("second", "other-adapter")]
    assert {p.adapter.rank for p in contents.parameters.values() if p.adapter} == {2}


def test_a_bin_file_reads_like_safetensors(tmp_path: Path) -> None:
    model = adapted(tmp_path, llama(), target_modules=["q_proj"])
    model.save_pretrained(tmp_path / "other", safe_serialization=False)
    folder = tmp_path / "run" / "checkpoint-3"
    (folder / "adapter_model.safetensors").unlink()
    (tmp_path / "other" / "adapter_model.bin").rename(folder / "adapter_model.bin")
    truth = merged(model)
    for name, parameter in read(tmp_path).parameters.items():
        assert effective(parameter) == pytest.approx(truth[name], abs=1e-5)


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"init_lora_weights": "pissa"}, "adapter-init"),
        ({"init_lora_weights": "pissa_niter_2"}, "adapter-init"),
        ({"init_lora_weights": "olora"}, "adapter-init"),
        ({"layer_replication": [(0, 2), (0, 2)]}, "layer-replication"),
    ],
)
def test_a_delta_that_is_not_added_stands_alone(
    config: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    adapted(tmp_path, llama(), target_modules=["q_proj"], **config)
    contents = read(tmp_path)
    alone = {p.module for p in contents.parameters.values() if p.adapter}
    assert alone == {skip.tensor for skip in contents.skips} and len(alone) > 1
    assert reasons(contents) == {reason}
    for parameter in contents.parameters.values():
        assert (parameter.tensor is None) == (parameter.adapter is not None)


@pytest.mark.parametrize("start", ["gaussian", "orthogonal", "eva", True, False])
def test_starts_that_leave_the_base_alone_are_ordinary(start: Any, tmp_path: Path) -> None:
    adapted(tmp_path, llama(), target_modules=["q_proj"])
    change(tmp_path / "run" / "checkpoint-3" / "adapter_config.json", init_lora_weights=start)
    assert not read(tmp_path).skips


def test_trained_tokens_leave_their_embedding_out(tmp_path: Path) -> None:
    adapted(tmp_path, llama(), target_modules=["q_proj"], trainable_token_indices=[1, 2])
    contents = read(tmp_path)
    (skip,) = contents.skips
    assert (skip.reason, skip.tensor) == ("trainable-tokens", "model.embed_tokens")
    assert "model.embed_tokens.weight" not in contents.parameters
    assert "lm_head.weight" in contents.parameters


@pytest.mark.parametrize("holder", ["mlp.experts.", ""])
def test_factors_of_stacked_experts_are_named(holder: str, tmp_path: Path) -> None:
    adapted(
        tmp_path, mixtral(), target_modules=["q_proj"],
        target_parameters=[f"{holder}gate_up_proj", f"{holder}down_proj"],
    )  # fmt: skip
    contents = read(tmp_path)
    assert [skip.reason for skip in contents.skips] == ["target-parameters"] * 2
    assert not [name for name in contents.parameters if "experts" in name]
    assert contents.parameters["model.layers.0.self_attn.q_proj.weight"].adapter is not None
    assert "model.layers.0.self_attn.k_proj.weight" in contents.parameters


def test_a_targeted_parameter_that_is_a_matrix_is_ordinary(tmp_path: Path) -> None:
    model = adapted(
        tmp_path, llama(), target_modules=["v_proj"], target_parameters=["q_proj.weight"], r=3,
        rank_pattern={"q_proj": 4, "v_proj": 2}, alpha_pattern={"q_proj.weight": 5},
    )  # fmt: skip
    contents, truth = read(tmp_path), merged(model)
    assert not contents.skips
    for name, parameter in contents.parameters.items():
        assert effective(parameter) == pytest.approx(truth[name], abs=1e-5)
    assert sum(p.adapter is not None for p in contents.parameters.values()) == 4


def test_biases_are_not_matrices(tmp_path: Path) -> None:
    adapted(tmp_path, gpt2(), target_modules=["c_attn"], bias="all")
    contents = read(tmp_path)
    assert not contents.skips and all("bias" not in name for name in contents.parameters)


def test_a_convolution_is_flattened_as_its_weight_is(tmp_path: Path) -> None:
    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.patch = torch.nn.Conv2d(3, 8, 2)

    config = peft.LoraConfig(r=2, target_modules=["patch"], init_lora_weights=False)
    model = peft.get_peft_model(Model(), config)
    folder = tmp_path / "adapter"
    model.save_pretrained(folder)
    truth = model.base_model.model.patch.get_delta_weight("default").detach().numpy()
    (parameter,) = layout.read(folder, DEFAULT).parameters.values()
    assert delta(parameter) == pytest.approx(truth.reshape(8, 12), abs=1e-6)


def test_the_base_is_found_in_the_cache_of_the_hub(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    commit = "0123456789" * 4
    repository = tmp_path / "hub" / "models--org--tiny"
    write_model(repository / "snapshots" / commit, random_weights(rng))
    (repository / "refs" / "refs" / "pr").mkdir(parents=True)
    (repository / "refs" / "main").write_text(commit)
    (repository / "refs" / "refs" / "pr" / "1").write_text(commit)
    folder = tmp_path / "adapter"
    write_adapter(folder, random_factors(rng), scale=1.0)
    for revision in (None, "main", "refs/pr/1", commit):
        change(
            folder / "adapter_config.json", base_model_name_or_path="org/tiny", revision=revision
        )
        contents = layout.read(folder, DEFAULT)
        assert not contents.skips and contents.family == "llama-like"
        assert all(p.tensor is not None for p in contents.parameters.values())


@pytest.mark.parametrize(
    "name",
    [None, 7, "", "org/absent", "../../etc", "a\0b", "x" * 5000, "org/../tiny", "/", "~"],
)
def test_the_delta_is_read_without_its_base(
    name: Any, tmp_path: Path, rng: np.random.Generator
) -> None:
    factors = random_factors(rng)
    write_adapter(tmp_path, factors, scale=2.0)
    change(tmp_path / "adapter_config.json", base_model_name_or_path=name, revision="../main")
    contents = layout.read(tmp_path, DEFAULT)
    assert reasons(contents) == set()
    for module, (left, right) in factors.items():
        parameter = contents.parameters[f"{module}.weight"]
        assert parameter.tensor is None
        assert delta(parameter) == pytest.approx(2.0 * left @ right)


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"peft_type": "IA3"}, "of type IA3"),
        ({"use_qalora": True}, "QALoRA"),
        ({"kasa_config": {"beta": 1e-4}}, "KaSA"),
        ({"lora_alpha": "8"}, "lora_alpha is '8'"),
        ({"lora_alpha": float("nan")}, "lora_alpha is nan"),
        ({"alpha_pattern": {"q_proj": None}}, "q_proj is None"),
        ({"alpha_pattern": {"q_proj(": 2}}, "not a regular expression"),
        ({"alpha_pattern": [1]}, "not a table"),
        ({"rank_pattern": {"*": 2}}, "not a regular expression"),
    ],
)
def test_a_config_that_cannot_be_followed_is_refused(
    entries: dict[str, Any], message: str, tmp_path: Path, rng: np.random.Generator
) -> None:
    write_adapter(tmp_path, random_factors(rng), scale=1.0)
    change(tmp_path / "adapter_config.json", **entries)
    with pytest.raises(RankscopeError, match=r"adapter_config\.json") as error:
        layout.read(tmp_path, DEFAULT)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (np.ones((0, 4)), np.ones((4, 0))),
        (np.ones(4), np.ones((4, 1))),
        (np.ones((2, 4)), np.ones((4, 3))),
        (np.ones((2, 4), np.int8), np.ones((4, 2), np.int8)),
        (np.ones((3, 2, 4)), np.ones((3, 4, 2))),
        (np.array(1.0), np.array(1.0)),
    ],
)
def test_factors_that_make_no_delta_are_named(
    a: NDArray[Any], b: NDArray[Any], tmp_path: Path, rng: np.random.Generator
) -> None:
    write_adapter(tmp_path, random_factors(rng), scale=1.0)
    path = tmp_path / "adapter_model.safetensors"
    prefix = "base_model.model.model.layers.9.mlp.up_proj"
    for ending in ("lora_A.weight", "lora_embedding_A"):
        pair = {f"{prefix}.{ending}": a, f"{prefix}.{ending.replace('A', 'B')}": b}
        save_file(load_file(path) | pair, path)
    contents = layout.read(tmp_path, DEFAULT)
    assert [s.tensor for s in contents.skips if s.reason == "adapter-incomplete"] == [
        "model.layers.9.mlp.up_proj"
    ]
    assert len(contents.parameters) == 14


def test_weights_that_are_missing_are_named(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    with pytest.raises(RankscopeError, match=r"no adapter_model\.safetensors"):
        layout.read(tmp_path, DEFAULT)


def test_a_model_beside_a_lost_adapter_is_a_model(tmp_path: Path, rng: np.random.Generator) -> None:
    write_model(tmp_path, random_weights(rng))
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    assert not layout.recognises(tmp_path)
    write_adapter(tmp_path, random_factors(rng), scale=1.0)
    assert layout.recognises(tmp_path)
