"""Circuits against the attention of each model as transformers computes it."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from rankscope.checkpoints.contents import Contents
from rankscope.checkpoints.discovery import open_run
from rankscope.components.circuits import Circuits
from rankscope.components.component import Component, Moment
from rankscope.components.selection import AT_CHECKPOINTS
from rankscope.spectra.singular_values import spectra

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

Matrix = NDArray[np.float64]
TOKENS, WIDTH = 5, 16
PLAIN = {"hidden_size": WIDTH, "num_attention_heads": 4, "num_hidden_layers": 1, "vocab_size": 9,
         "intermediate_size": 8, "pad_token_id": 0}  # fmt: skip
GROUPED = PLAIN | {"num_key_value_heads": 2}
SIZED = GROUPED | {"head_dim": 6}
LATENT = PLAIN | {"num_key_value_heads": 4, "kv_lora_rank": 7, "q_lora_rank": 9, "qk_nope_head_dim": 4, "v_head_dim": 3,
                  "qk_rope_head_dim": 2, "first_k_dense_replace": 1,
                  "n_routed_experts": 2}  # fmt: skip
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
    return open_run(folder)[0].contents


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
    name, attention = next((n, m) for n, m in model.named_modules()
                           if n.endswith(("attn", "attention")))  # fmt: skip
    numbers: dict[str, Matrix] = {}
    for key, norm in attention.named_children():
        if "norm" in key:
            norm.register_forward_hook(
                lambda m, given, _, k=key: numbers.update({k: number(m, given[0])})
            )
    extra = {}
    if hasattr(model, "rotary_emb"):
        where = torch.zeros(1, TOKENS, dtype=torch.long)
        try:
            turns = model.rotary_emb(x, where)
        except TypeError:
            turns = model.rotary_emb(x, where, "sliding_attention")
        is_latent = hasattr(attention, "kv_b_proj")
        turns = (
            tuple(0 * t for t in turns)
            if isinstance(turns, tuple) and is_latent
            else (0 * turns if is_latent else turns)
        )
        extra["position_embeddings"] = turns
    with torch.no_grad():
        output, weights = attention(x, attention_mask=None, **extra)[:2]
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
