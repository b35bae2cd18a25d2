"""QK circuits of models with QK-norm, compared with the products that their attentions form.

A model's own attention is given queries and keys after all norms and rotations. At one and the same
position rotations cancel, so the product of both is that of the circuit, up to the two numbers that
the norms divide by.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rankscope.checkpoints.discovery import open_run
from rankscope.components.attentions import circuits
from rankscope.components.component import Moment
from rankscope.spectra.matrices import LowRank

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

HEADS, KV_HEADS, SIZE = 4, 2, 8
USUAL = {
    "hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": HEADS, "vocab_size": 40,
    "num_key_value_heads": KV_HEADS, "head_dim": SIZE, "intermediate_size": 40, "pad_token_id": 0,
}  # fmt: skip
ONE_KIND = {"layer_types": ["full_attention"]}
MODELS: dict[str, dict[str, Any]] = {
    "qwen3": USUAL,
    "gemma3_text": USUAL,
    "doge": USUAL,
    "flint": USUAL,
    "gemma4_text": {
        **USUAL,
        **ONE_KIND,
        "global_head_dim": SIZE,
        "num_global_key_value_heads": None,
    },
    "hy_v3": {**USUAL, "first_k_dense_replace": 1},
    "molmo2_text": USUAL,
    "mellum": {**USUAL, **ONE_KIND, "num_experts": 4, "num_experts_per_tok": 2},
    "minimax_m3_vl_text": {**USUAL, "rotary_dim": SIZE, "num_local_experts": 4},
}


@pytest.fixture
def given() -> Iterator[list[Any]]:
    """The queries and keys that every attention is given, once it is registered."""
    calls: list[Any] = []

    def attention(module: Any, query: Any, key: Any, value: Any, *rest: Any, **more: Any) -> Any:
        calls.append((query, key))
        return value.repeat_interleave(query.shape[1] // value.shape[1], 1).transpose(1, 2), None

    transformers.AttentionInterface.register("observed", attention)
    yield calls


SLOW = ("gemma4_text",)  # to import


@pytest.mark.parametrize(
    "model_type",
    [pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW)) for name in MODELS],
)
def test_qk_with_a_norm_is_what_the_attention_multiplies(
    model_type: str, given: list[Any], tmp_path: Path
) -> None:
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(model_type, **MODELS[model_type])
    config._experts_implementation = "eager"  # others do not compute in float64
    model = transformers.AutoModel.from_config(config, attn_implementation="observed").double()
    for values in model.parameters():
        torch.nn.init.uniform_(values, *((0.5, 1.5) if values.ndim == 1 else (-0.5, 0.5)))
    seen: dict[str, Any] = {}
    attention = model.layers[0].self_attn
    for name in ("q_proj", "q_norm", "k_norm"):
        attention.get_submodule(name).register_forward_hook(
            lambda module, inputs, result, name=name: seen.update({name: inputs[0][0]})
        )
    with torch.no_grad():
        model(input_ids=torch.tensor([[5, 9, 7]]))
    query, key = (one[0, :, 2].numpy() for one in given[0])
    products = (query * key.repeat(HEADS // KV_HEADS, axis=0)).sum(-1)
    divided = [
        seen[name].transpose(0, int(seen[name].shape[0] != 3))[2].pow(2).mean(-1).sqrt().numpy()
        for name in ("q_norm", "k_norm")
    ]
    model.save_pretrained(tmp_path)
    (circuit,) = circuits("qk", Moment(open_run(tmp_path)[0].contents))
    matrices = circuit.recipe.read()
    assert isinstance(matrices, LowRank)
    x = seen["q_proj"][2].numpy()
    found = np.array([x @ left @ (right @ x) for left, right in
                      zip(matrices.left, matrices.right, strict=True)])  # fmt: skip
    scale = divided[0] * divided[1].repeat(HEADS // KV_HEADS)
    assert found == pytest.approx(products * scale, rel=1e-4)
