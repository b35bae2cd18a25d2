from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from rankscope.training.config import ModelConfig
from rankscope.training.model import LanguageModel

MakeModel = Callable[..., LanguageModel]


def hugging_face_model(config: ModelConfig, vocab_size: int) -> LlamaForCausalLM:
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=vocab_size,
            hidden_size=config.hidden_size,
            intermediate_size=config.intermediate_size,
            num_hidden_layers=config.num_hidden_layers,
            num_attention_heads=config.num_attention_heads,
            num_key_value_heads=config.num_key_value_heads,
            rms_norm_eps=config.rms_norm_eps,
            tie_word_embeddings=False,
        )
    )
    model.eval()  # type: ignore[no-untyped-call]
    return model


@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_it_computes_what_transformers_computes_with_the_same_weights(kv_heads: int) -> None:
    config = ModelConfig(
        hidden_size=32, num_key_value_heads=kv_heads, num_hidden_layers=3, initializer_range=0.3
    )
    model = LanguageModel(config, vocab_size=29)
    model.initialise(0)
    reference = hugging_face_model(config, 29)
    reference.load_state_dict(model.state_dict(), strict=True)
    ids = torch.randint(29, (3, 40))
    with torch.no_grad():
        torch.testing.assert_close(model(ids), reference(ids).logits, atol=1e-5, rtol=1e-5)


def test_a_later_token_does_not_change_an_earlier_prediction(
    make_model: MakeModel, tokens: torch.Tensor
) -> None:
    model = make_model({"method": "full", "schedule.restart_every": 0})
    changed = tokens.clone()
    changed[:, 8:] = (changed[:, 8:] + 1) % 31
    torch.testing.assert_close(model(tokens)[:, :8], model(changed)[:, :8])


def test_the_loss_is_the_mean_surprise_of_every_next_token(
    make_model: MakeModel, tokens: torch.Tensor
) -> None:
    model = make_model()
    log_p = model(tokens[:, :-1]).log_softmax(-1)
    picked = log_p.gather(-1, tokens[:, 1:, None])
    torch.testing.assert_close(model.loss(tokens), -picked.mean())


def test_equal_logits_cost_the_logarithm_of_the_vocabulary(
    make_model: MakeModel, tokens: torch.Tensor
) -> None:
    model = make_model()
    torch.nn.init.zeros_(model.lm_head.weight)
    torch.testing.assert_close(model.loss(tokens), torch.tensor(31.0).log())


def test_every_method_starts_from_the_same_weights(make_model: MakeModel) -> None:
    full = make_model({"method": "full", "schedule.restart_every": 0}).state_dict()
    relora = make_model().state_dict()
    assert set(full) == {name for name in relora if ".lora_" not in name}
    assert all(torch.equal(full[name], relora[name]) for name in full)


def test_another_seed_gives_other_weights(make_model: MakeModel) -> None:
    one, two = make_model({"seed": 1}), make_model({"seed": 2})
    assert not torch.equal(one.lm_head.weight, two.lm_head.weight)
