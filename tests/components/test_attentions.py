"""Circuits against the attention of each model as transformers computes it."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file

from rankscope.checkpoints.contents import Contents
from rankscope.checkpoints.discovery import open_run
from rankscope.components.circuits import Circuits
from rankscope.components.component import Component, Moment
from rankscope.components.recipes import Misfit
from rankscope.components.selection import AT_CHECKPOINTS
from rankscope.components.windows import Window
from rankscope.spectra.matrices import LowRank

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

Matrix = NDArray[np.float64]
TOKENS, WIDTH = 5, 16
PLAIN = {"hidden_size": WIDTH, "num_attention_heads": 4, "num_hidden_layers": 1, "vocab_size": 9,
         "intermediate_size": 8, "pad_token_id": 0}  # fmt: skip
GROUPED = PLAIN | {"num_key_value_heads": 2}
SIZED = GROUPED | {"head_dim": 6}
LATENT = PLAIN | {
    "num_key_value_heads": 4, "kv_lora_rank": 7, "q_lora_rank": 9, "qk_nope_head_dim": 4,
    "v_head_dim": 3, "qk_rope_head_dim": 2, "first_k_dense_replace": 1, "n_routed_experts": 2,
}  # fmt: skip
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "Llama": ("Llama", GROUPED),
    "GPT-2": ("GPT2", {"n_embd": WIDTH, "n_head": 4, "n_layer": 1, "vocab_size": 9}),
    "GPT-NeoX": ("GPTNeoX", PLAIN | {"rotary_pct": 0.5}),
    "Qwen3": ("Qwen3", SIZED),
    "Gemma3": ("Gemma3Text", SIZED),
    "OLMo2": ("Olmo2", GROUPED),
    "Cohere": ("Cohere", GROUPED | {"use_qk_norm": True}),
    "BitNet": ("BitNet", GROUPED),
    "DeepSeek-V3": ("DeepseekV3", LATENT),
    "DeepSeek-V3, narrow": ("DeepseekV3", LATENT | {"kv_lora_rank": 3, "q_lora_rank": 2}),
    "DeepSeek-V2 Lite": ("DeepseekV2", LATENT | {"q_lora_rank": None}),
}


def built(name: str) -> Any:
    """A tiny model with random gains and without biases, in float64."""
    kind, settings = MODELS[name]
    torch.manual_seed(0)
    config = getattr(transformers, f"{kind}Config")(**settings, attn_implementation="eager")
    model = getattr(transformers, f"{kind}Model")(config).double().eval()
    for key, one in model.named_parameters():
        with torch.no_grad():
            one.copy_(torch.randn_like(one) * 0.5)
            if key.endswith("bias"):
                one.zero_()
    return model


def opened(model: Any, folder: Path) -> Contents:
    model.save_pretrained(folder)
    return read(folder)


def read(folder: Path, family: Path | None = None) -> Contents:
    (only,) = open_run(folder, family=family)
    return only.contents


def found(contents: Contents, kind: str) -> tuple[Component, Circuits]:
    (one,) = AT_CHECKPOINTS[kind](Moment(contents))
    assert isinstance(one.recipe, Circuits)
    return one, one.recipe


@dataclass
class Seen:
    """What an attention computed: its weights, its output, and what its norms divided by."""

    weights: Matrix  # heads × queries × keys
    output: Matrix
    numbers: dict[str, Matrix]  # by the name of the norm: 1 or heads × tokens
    scaling: float


def seen(model: Any, x: Any) -> Seen:
    """Run the attention between equal positions; of latent attention, without the positions."""
    ends = ("attn", "attention")
    attention = next(m for n, m in model.named_modules() if n.endswith(ends))
    numbers: dict[str, Matrix] = {}
    for key, norm in attention.named_children():
        if "norm" in key:
            norm.register_forward_hook(
                lambda m, given, _, key=key: numbers.update({key: number(m, given[0])})
            )
    turns = {}
    if hasattr(model, "rotary_emb"):
        of_layer = ("sliding_attention",) if "Gemma3" in type(model).__name__ else ()
        found = model.rotary_emb(x, torch.zeros(1, TOKENS, dtype=torch.long), *of_layer)
        if hasattr(attention, "kv_b_proj"):
            found = tuple(0 * t for t in found) if isinstance(found, tuple) else 0 * found
        turns = {"position_embeddings": found}
    with torch.no_grad():
        output, weights = attention(x, attention_mask=None, **turns)[:2]
    scaling = getattr(attention, "scaling", None) or (WIDTH // 4) ** -0.5
    return Seen(weights[0].numpy(), output[0].numpy(), numbers, float(scaling))


def number(norm: Any, given: Any) -> Matrix:
    """What a norm divides each token by, as (1 or heads) × tokens."""
    eps = next(getattr(norm, k) for k in ("variance_epsilon", "eps") if hasattr(norm, k))
    if "LayerNorm" in type(norm).__name__:
        given = given - given.mean(-1, keepdim=True)
    root = (given.pow(2).mean(-1) + eps).sqrt().numpy()
    return np.asarray(root.reshape(TOKENS, -1).T if root.shape[1] == TOKENS else root[0])


@pytest.mark.parametrize("name", MODELS)
def test_circuits_give_the_weights_and_outputs_of_the_attention(name: str, tmp_path: Path) -> None:
    model = built(name)
    contents = opened(model, tmp_path)
    x = torch.randn(1, TOKENS, WIDTH, dtype=torch.float64)
    true, values = seen(model, x), x[0].numpy()
    one = {"": np.ones((1, TOKENS))}
    of_q = next((v for k, v in true.numbers.items() if k.startswith("q")), one[""])
    of_k = next((v for k, v in true.numbers.items() if k.startswith("k")), one[""])
    component, circuits = found(contents, "qk")
    product = circuits.factors().multiplied()
    assert component.role == "q" and component.heads == len(product) == len(true.weights)
    of_k_each = np.repeat(of_k, len(product) // len(of_k), axis=0)
    logits = np.einsum("id,hde,je->hij", values, product, values)
    logits = true.scaling * logits / of_q[:, :, None] / of_k_each[:, None, :]
    seen_logits = np.log(np.where(true.weights > 0, true.weights, np.nan))
    difference = (logits - seen_logits) - (logits - seen_logits)[:, :, :1]
    assert np.nanmax(np.abs(difference)) < 1e-5
    assert np.nanmax(np.abs(logits - logits.mean(-1, keepdims=True))) > 1e-2

    _, circuits = found(contents, "ov")
    product = circuits.factors().multiplied()
    of_v = of_k if "kv_a_layernorm" in true.numbers else one[""]
    heads = np.einsum("hij,hde,je->id", true.weights / of_v[:, None, :], product, values)
    heads = heads / true.numbers.get("attn_sub_norm", one[""]).T
    assert heads == pytest.approx(true.output, abs=1e-5)


def without(folder: Path, end: str, **added: Matrix) -> None:
    """Take a tensor out of a saved model, and put others into its attention."""
    held = load_file(folder / "model.safetensors")
    kept = {name: one for name, one in held.items() if not name.endswith(end)}
    parent = next(n.removesuffix("o_proj.weight") for n in held if n.endswith("o_proj.weight"))
    kept |= {f"{parent}{name}": torch.from_numpy(one) for name, one in added.items()}
    save_file(kept, folder / "model.safetensors")


def changed(folder: Path, **entries: object) -> None:
    """Change entries of a saved model's config."""
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | entries))


def reason(contents: Contents, kind: str = "qk") -> str:
    (one,) = AT_CHECKPOINTS[kind](Moment(contents))
    assert isinstance(one.recipe, Misfit) and one.name == f"layers.0.self_attn.{kind}"
    assert one.heads == 0 and one.recipe.path
    return f"{one.recipe.reason}: {one.recipe.message}"


def test_a_gain_that_is_missing_is_said(tmp_path: Path) -> None:
    opened(built("Qwen3"), tmp_path)
    without(tmp_path, "q_norm.weight")
    contents = read(tmp_path)
    assert "norm-missing: the gain of layers.0.self_attn.q_norm is not in" in reason(contents)
    assert found(contents, "ov")  # which it is not between


def test_a_latent_gain_that_is_missing_leaves_neither_circuit(tmp_path: Path) -> None:
    opened(built("DeepSeek-V3"), tmp_path)
    without(tmp_path, "kv_a_layernorm.weight")
    contents = read(tmp_path)
    for kind in ("ov", "qk"):
        assert reason(contents, kind).startswith(
            "norm-missing: the gain of layers.0.self_attn.kv_a"
        )


def test_a_norm_that_no_table_knows_is_said_until_a_family_names_it(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    model = built("Qwen3")
    product = found(opened(model, folder), "qk")[1].factors().multiplied()
    changed(folder, model_type="my_own")
    assert "norm-unknown: what the model does with layers.0.self_attn.q_norm.weight" in reason(
        read(folder)
    )
    table = tmp_path / "own.toml"
    text = """
        name = "own"
        roles = {q_proj = "q", k_proj = "k", v_proj = "v", o_proj = "o"}
        [[norms]]
        kind = "rms"
        offset = OFFSET
        q = "q_norm"
        k = "k_norm"
    """
    for offset in (0, 1):
        table.write_text(text.replace("OFFSET", str(offset)))
        own = found(read(folder, table), "qk")[1].factors().multiplied()
        assert np.allclose(own, product) == (offset == 0)


@pytest.mark.parametrize(
    ("name", "shape", "is_said"),
    [
        ("q_conv1d.weight", (16, 1, 4), True),
        ("conv.weight", (4, 1, 5, 1), True),
        ("norm_q.weight", (24,), True),
        ("qk_norm.scale", (6,), True),
        ("qnorm.weight", (6,), True),
        ("ln_k.weight", (6,), True),
        ("q_bias", (24,), False),
        ("k_scale", (1,), False),
        ("q_proj.weight_scale", (24, 1), False),
        ("rotary_emb.inv_freq", (3,), False),
        ("attn_norm.weight", (24,), False),
    ],
)
def test_what_may_be_between_queries_and_keys_is_said(
    name: str, shape: tuple[int, ...], is_said: bool, tmp_path: Path
) -> None:
    config = transformers.LlamaConfig(**SIZED)
    transformers.LlamaModel(config).save_pretrained(tmp_path)
    without(tmp_path, "nothing", **{name: np.ones(shape, np.float32)})
    contents = read(tmp_path)
    if is_said:
        assert reason(contents).startswith("norm-unknown")
    else:
        assert found(contents, "qk")


def test_a_known_norm_does_not_hide_an_unknown_one(tmp_path: Path) -> None:
    opened(built("Qwen3"), tmp_path)
    without(tmp_path, "nothing", **{"q_conv1d.weight": np.ones((24, 1, 4))})
    assert reason(read(tmp_path)).startswith("norm-unknown: what the model does with layers.0")


@pytest.mark.parametrize(
    ("name", "shape", "is_said"),
    [
        ("g_proj.weight", (4, 16), True),
        ("gate_proj.weight", (24, 16), True),  # which also is what the gate of an MLP is called
        ("lambda_q1", (6,), True),
        ("v_norm.weight", (6,), True),
        ("inner_attn_ln.weight", (24,), True),
        ("o_norm.weight", (6,), True),
        ("conv.weight", (4, 1, 5, 1), True),
        ("q_norm.weight", (6,), False),
        ("v_bias", (12,), False),
        ("output_bias", (16,), False),
        ("attn_norm.weight", (16,), False),
    ],
)
def test_what_may_be_between_values_and_outputs_is_said(
    name: str, shape: tuple[int, ...], is_said: bool, tmp_path: Path
) -> None:
    config = transformers.LlamaConfig(**SIZED)
    transformers.LlamaModel(config).save_pretrained(tmp_path)
    without(tmp_path, "nothing", **{name: np.ones(shape, np.float32)})
    contents = read(tmp_path)
    if is_said:
        said = reason(contents, "ov")
        assert said.startswith("norm-unknown: what the model does with layers.0.self_attn.")
        assert ("gates have no place" in said) == (name[0] in "gl")
    else:
        assert found(contents, "ov")


def test_the_gate_of_an_mlp_is_not_one_of_the_attention_beside_it(tmp_path: Path) -> None:
    config = transformers.LlamaConfig(**SIZED)
    transformers.LlamaModel(config).save_pretrained(tmp_path)
    held = load_file(tmp_path / "model.safetensors")
    flat = {name.replace("self_attn.", "").replace("mlp.", ""): one for name, one in held.items()}
    save_file(flat, tmp_path / "model.safetensors")
    (one,) = AT_CHECKPOINTS["ov"](Moment(read(tmp_path)))
    assert isinstance(one.recipe, Circuits)


def test_a_gate_among_the_queries_leaves_no_circuit(tmp_path: Path) -> None:
    settings = SIZED | {"layer_types": ["full_attention"]}
    config = transformers.Qwen3_5TextConfig(**settings)
    transformers.Qwen3_5TextModel(config).save_pretrained(tmp_path)
    assert "q_proj.weight has 48 rows, and the config states 4 heads of 6" in reason(
        read(tmp_path), "ov"
    )


def test_a_gate_in_one_tensor_with_the_queries_leaves_no_circuit(tmp_path: Path) -> None:
    opened(built("Llama"), tmp_path)
    held = load_file(tmp_path / "model.safetensors")
    attention, heads = "layers.0.self_attn", [f"{one}_proj.weight" for one in "qkv"]
    rows = [held.pop(f"{attention}.{one}") for one in heads]
    table = tmp_path / "own.toml"
    text = """
        name = "own"
        roles = {o_proj = "o"}
        fused."self_attn.all".parts = PARTS
    """
    for parts, more in ((["other", "q", "k", "v"], rows[:1]), (["q", "k", "v"], [])):
        held[f"{attention}.all.weight"] = torch.cat([*more, *rows])
        save_file(held, tmp_path / "model.safetensors")
        table.write_text(text.replace("PARTS", str(parts)))
        contents = read(tmp_path, table)
        assert isinstance(found(contents, "qk")[1], Circuits)
        if more:
            said = reason(contents, "ov")
            assert "all has other rows too" in said and "gates have no place" in said
        else:
            assert isinstance(found(contents, "ov")[1], Circuits)


def test_queries_of_another_size_are_said(tmp_path: Path) -> None:
    """Some models take a gate from the same map as the queries."""
    opened(built("Llama"), tmp_path)
    changed(tmp_path, head_dim=2)
    assert reason(read(tmp_path)).startswith("config-mismatch: the config states")


def test_a_gain_of_another_size_is_said(tmp_path: Path) -> None:
    opened(built("Qwen3"), tmp_path)
    without(tmp_path, "q_norm.weight", **{"q_norm.weight": np.ones(5)})
    assert reason(read(tmp_path)).startswith("config-mismatch: the config states")


@pytest.mark.filterwarnings("ignore")  # of the libraries at each other
def test_live_adapters_are_in_the_circuits(tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    model = built("Qwen3")
    model.save_pretrained(tmp_path / "base")
    config = peft.LoraConfig(r=2, target_modules=["q_proj", "k_proj"], init_lora_weights=False)
    adapted = peft.get_peft_model(model, config)
    adapted.base_model.model.config._name_or_path = str(tmp_path / "base")
    adapted.peft_config["default"].base_model_name_or_path = str(tmp_path / "base")
    adapted.save_pretrained(tmp_path / "adapter")
    live = found(read(tmp_path / "adapter"), "qk")[1].factors().multiplied()
    bare = found(read(tmp_path / "base"), "qk")[1].factors().multiplied()
    adapted.merge_and_unload().save_pretrained(tmp_path / "merged")
    merged = found(read(tmp_path / "merged"), "qk")[1].factors().multiplied()
    assert live == pytest.approx(merged, abs=1e-6)
    assert np.abs(live - bare).max() > 1e-2


@pytest.mark.parametrize("is_later", [False, True])
def test_the_change_of_circuits_that_one_step_does_not_have_is_said(
    is_later: bool, tmp_path: Path
) -> None:
    steps = [opened(built("Qwen3"), tmp_path / name) for name in ("whole", "without")]
    without(tmp_path / "without", "k_norm.weight")
    steps[1] = read(tmp_path / "without")
    before, now = steps if is_later else steps[::-1]
    (change,) = AT_CHECKPOINTS["qk_update"](Moment(now, before, since_previous=Window(0, 1)))
    assert isinstance(change.recipe, Misfit) and change.recipe.reason == "norm-missing"
    assert change.heads == 0 and change.name == "layers.0.self_attn.qk"


def test_the_change_of_circuits_is_the_difference_of_their_products(tmp_path: Path) -> None:
    products, contents = [], []
    model = built("DeepSeek-V3")
    for step in range(2):
        contents.append(opened(model, tmp_path / str(step)))
        products.append(found(contents[-1], "qk")[1].factors().multiplied())
        for key, one in model.named_parameters():
            if "kv_a_layernorm" in key or "q_a_proj" in key:
                one.data *= 1.25
    moment = Moment(contents[1], contents[0], since_previous=Window(0, 1))
    (change,) = AT_CHECKPOINTS["qk_update"](moment)
    assert (change.kind, change.role, change.since) == ("qk_update", "q", 0)
    matrix = change.recipe.read()
    assert isinstance(matrix, LowRank) and change.heads == 4
    assert matrix.multiplied() == pytest.approx(products[1] - products[0], abs=1e-12)
