from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch._dynamo.testing import CompileCounter
from transformers import LlamaConfig, LlamaForCausalLM

from rankscope.training.adapters.lora_linear import (
    LoRALinear,
    iter_adapters,
    renew,
    target_shapes,
    trained_parameters,
    wrap,
)
from rankscope.training.config import PROJECTIONS, ModelConfig
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
    ids = torch.randint(29, (3, 40), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = reference(ids).logits
        largest = expected.abs().max().item()
        torch.testing.assert_close(model(ids), expected, atol=1e-6 * largest, rtol=1e-5)


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


def test_token_losses_are_those_of_the_counted_tokens(
    make_model: MakeModel, tokens: torch.Tensor
) -> None:
    model = make_model()
    counted = torch.rand(4, 12, generator=torch.Generator().manual_seed(1)) < 0.4
    log_p = model.double()(tokens[:, :-1]).log_softmax(-1)
    expected = -log_p.gather(-1, tokens[:, 1:, None]).squeeze(-1)[counted]
    found = model.float().token_losses(tokens, counted)
    assert not found.requires_grad
    torch.testing.assert_close(found.double(), expected, atol=1e-5, rtol=0)
    assert model.token_losses(tokens, torch.zeros_like(counted)).shape == (0,)


def test_the_loss_is_the_mean_of_all_token_losses(
    make_model: MakeModel, tokens: torch.Tensor
) -> None:
    model = make_model()
    losses = model.token_losses(tokens, torch.ones(4, 12, dtype=torch.bool))
    torch.testing.assert_close(losses.mean(), model.loss(tokens).detach())


def test_later_tokens_do_not_change_a_loss(make_model: MakeModel, tokens: torch.Tensor) -> None:
    model, counted = make_model(), torch.zeros(4, 12, dtype=torch.bool)
    counted[:, :7] = True
    padded = tokens.clone()
    padded[:, 8:] = 0
    torch.testing.assert_close(
        model.token_losses(padded, counted), model.token_losses(tokens, counted)
    )


def test_token_losses_of_a_bfloat16_model_are_float32_and_near(
    make_model: MakeModel, tokens: torch.Tensor
) -> None:
    model, every = make_model(), torch.ones(4, 12, dtype=torch.bool)
    exact = model.token_losses(tokens, every)
    rounded = model.to(torch.bfloat16).token_losses(tokens, every)
    assert rounded.dtype == torch.float32
    torch.testing.assert_close(rounded, exact, rtol=0.02, atol=0)


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


def test_the_loss_is_that_of_the_logits_in_every_gradient(
    make_model: MakeModel, tokens: torch.Tensor
) -> None:
    model = make_model()
    logits = model(tokens[:, :-1]).flatten(0, 1)
    expected = torch.nn.functional.cross_entropy(logits, tokens[:, 1:].flatten())
    parameters = [p for p in model.parameters() if p.requires_grad]
    for found, wanted in zip(
        torch.autograd.grad(model.loss(tokens), parameters),
        torch.autograd.grad(expected, parameters),
        strict=True,
    ):
        torch.testing.assert_close(found, wanted)


def test_initial_values_of_torch_are_distributed_as_its_layers_are() -> None:
    config = ModelConfig(hidden_size=64, intermediate_size=256, initialisation="torch")
    model = LanguageModel(config, vocab_size=500)
    model.initialise(0)
    for name, weight in model.named_parameters():
        if weight.ndim == 1:
            assert (weight == 1).all()
        elif name == "model.embed_tokens.weight":
            assert weight.std().item() == pytest.approx(1, abs=0.03)
        else:
            bound = weight.shape[1] ** -0.5
            # Of n uniform values the largest is within bound / n of the bound, or so.
            assert 0.99 * bound < weight.abs().max().item() <= bound
            assert weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.03)


@pytest.mark.parametrize("initialisation", ["normal", "torch"])
def test_initial_values_depend_on_the_seed_and_the_name_alone(initialisation: str) -> None:
    def weights(layers: int, seed: int = 0) -> dict[str, torch.Tensor]:
        config = ModelConfig(num_hidden_layers=layers, initialisation=initialisation)
        model = LanguageModel(config, vocab_size=9)
        model.initialise(seed)
        return {name: p.detach() for name, p in model.named_parameters() if p.ndim == 2}

    small, large, other = weights(1), weights(2), weights(1, seed=1)
    assert all(torch.equal(weight, large[name]) for name, weight in small.items())
    assert not any(torch.equal(weight, other[name]) for name, weight in small.items())


def test_under_autocast_the_loss_is_float32_and_near(
    make_model: MakeModel, tokens: torch.Tensor
) -> None:
    model = make_model()
    with torch.autocast("cpu", torch.bfloat16):
        loss = model.loss(tokens)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, model.loss(tokens), rtol=0.01, atol=0)


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # by dynamo
@pytest.mark.parametrize("low_rank", [False, True])
@pytest.mark.slow
def test_the_loss_compiles_to_one_graph_that_outlives_merges(low_rank: bool) -> None:
    torch._dynamo.reset()
    model = LanguageModel(ModelConfig(hidden_size=16, intermediate_size=24), vocab_size=31)
    model.initialise(0)
    if low_rank:
        for name, (_, in_features) in target_shapes(model, PROJECTIONS).items():
            a = torch.randn(2, in_features)
            wrap(model, name, a, scale=0.5, make=lambda w, a, s: LoRALinear(w, a, scale=s))
    counter = CompileCounter()
    compiled = torch.compile(model.loss, backend=counter, fullgraph=True)
    optimizer = torch.optim.AdamW(trained_parameters(model), lr=0.01)
    for seed in range(4):
        tokens = torch.randint(31, (4, 13), generator=torch.Generator().manual_seed(seed))
        loss = compiled(tokens)
        torch.testing.assert_close(loss, model.loss(tokens))
        loss.backward()
        optimizer.step()
        for _, layer in iter_adapters(model):
            layer.merge()
            layer.reset(torch.randn_like(layer.lora_A), scale=0.5)
        renew(optimizer, model)
    assert counter.frame_count == 1


def test_another_seed_gives_other_weights(make_model: MakeModel) -> None:
    one, two = make_model({"seed": 1}), make_model({"seed": 2})
    assert not torch.equal(one.lm_head.weight, two.lm_head.weight)
