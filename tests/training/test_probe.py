from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from rankscope.training.adapters.lora_linear import iter_adapters
from rankscope.training.model import LanguageModel
from rankscope.training.probe import effective_gradients, mean_loss

MakeModel = Callable[..., LanguageModel]
FULL = {"method": "full", "schedule.restart_every": 0}


@pytest.fixture
def wrapped(make_model: MakeModel) -> LanguageModel:
    """A float64 model whose adapters have learned something."""
    model = make_model().double()
    for _, layer in iter_adapters(model):
        nn.init.normal_(layer.lora_B, std=0.3, generator=torch.Generator().manual_seed(1))
    return model


@pytest.fixture
def materialised(wrapped: LanguageModel, make_model: MakeModel) -> LanguageModel:
    """The same function without adapters."""
    model = make_model(FULL).double()
    weights = {k: v for k, v in wrapped.state_dict().items() if ".lora_" not in k}
    for name, layer in iter_adapters(wrapped):
        weights[f"{name}.weight"] = layer.weight + layer.delta()
    model.load_state_dict(weights)
    return model


def test_the_gradient_does_not_depend_on_how_the_weight_is_written(
    wrapped: LanguageModel, materialised: LanguageModel, tokens: Tensor
) -> None:
    one = effective_gradients(wrapped, iter([tokens]))
    two = effective_gradients(materialised, iter([tokens]))
    assert one.keys() == two.keys()
    for name in one:
        torch.testing.assert_close(one[name], two[name], rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("name", ["self_attn.k_proj", "mlp.down_proj"])
def test_the_gradient_is_the_slope_in_the_effective_weight(
    wrapped: LanguageModel, tokens: Tensor, name: str
) -> None:
    gradient = effective_gradients(wrapped, iter([tokens]))[f"model.layers.1.{name}.weight"]
    weight = wrapped.get_parameter(f"model.layers.1.{name}.weight")
    generator = torch.Generator().manual_seed(2)
    direction = torch.randn(weight.shape, dtype=torch.float64, generator=generator)
    losses = []
    for sign in (1, -1):
        weight.data += sign * 1e-5 * direction
        losses.append(wrapped.loss(tokens).item())
        weight.data -= sign * 1e-5 * direction
    slope = (losses[0] - losses[1]) / 2e-5
    assert (gradient * direction).sum().item() == pytest.approx(slope, rel=1e-6)


def test_it_is_the_gradient_that_training_the_weight_would_use(
    make_model: MakeModel, tokens: Tensor
) -> None:
    model = make_model(FULL)
    measured = effective_gradients(model, iter([tokens]))
    model.loss(tokens).backward()  # type: ignore[no-untyped-call]
    for name, gradient in measured.items():
        torch.testing.assert_close(gradient, model.get_parameter(name).grad)


def test_every_projection_has_a_gradient_of_its_shape(
    make_model: MakeModel, tokens: Tensor
) -> None:
    model = make_model()
    gradients = effective_gradients(model, iter([tokens]))
    assert len(gradients) == 2 * 7
    for name, gradient in gradients.items():
        assert gradient.shape == model.get_parameter(name).shape
        assert gradient.dtype == torch.float32


def test_measuring_leaves_the_model_as_it_was(make_model: MakeModel, tokens: Tensor) -> None:
    model = make_model().train()
    required = [p.requires_grad for p in model.parameters()]
    effective_gradients(model, iter([tokens]))
    mean_loss(model, iter([tokens]))
    assert model.training
    assert [p.requires_grad for p in model.parameters()] == required
    assert all(p.grad is None for p in model.parameters())
    mean_loss(model.eval(), iter([tokens]))
    assert not model.training


def test_loss_and_gradient_do_not_depend_on_the_batch_size(
    wrapped: LanguageModel, tokens: Tensor
) -> None:
    parts = [tokens[:1], tokens[1:]]
    assert mean_loss(wrapped, iter(parts)) == pytest.approx(mean_loss(wrapped, iter([tokens])))
    whole = effective_gradients(wrapped, iter([tokens]))
    for name, gradient in effective_gradients(wrapped, iter(parts)).items():
        torch.testing.assert_close(gradient, whole[name])
