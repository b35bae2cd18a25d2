from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch._dynamo.testing import CompileCounter
from torch.utils._python_dispatch import TorchDispatchMode

from rankscope.training.adapters import low_rank_linear as module
from rankscope.training.adapters.low_rank_linear import low_rank_linear

# out, in, rank, leading sides of x; the first of each pair sums the weights, the second does not.
SHAPES = [
    (5, 7, 2, (3, 4)),
    (5, 7, 2, (2,)),
    (8, 3, 1, (9,)),
    (12, 9, 3, ()),
    (1, 4, 1, ()),
]


def problem(
    out_features: int,
    in_features: int,
    rank: int,
    leading: tuple[int, ...],
    dtype: torch.dtype = torch.float64,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = (
        (*leading, in_features),
        (out_features, in_features),
        (out_features, rank),
        (rank, in_features),
    )
    x, weight, left, right = (
        torch.randn(shape, dtype=dtype, generator=generator).requires_grad_() for shape in shapes
    )
    return x, weight, left, right


@pytest.mark.parametrize("shape", SHAPES)
def test_it_is_the_product_with_the_sum(shape: Any) -> None:
    x, weight, left, right = problem(*shape)
    expected = F.linear(x, weight + left @ right)
    torch.testing.assert_close(low_rank_linear(x, weight, left, right), expected)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("weight_is_trained", [False, True])
@pytest.mark.slow
def test_gradients_are_those_of_finite_differences(shape: Any, weight_is_trained: bool) -> None:
    x, weight, left, right = problem(*shape)
    weight.requires_grad_(weight_is_trained)
    assert torch.autograd.gradcheck(low_rank_linear, (x, weight, left, right))
    assert torch.autograd.gradgradcheck(low_rank_linear, (x, weight, left, right))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_delta_of_zero_leaves_every_bit_of_the_output(shape: Any, dtype: torch.dtype) -> None:
    x, weight, left, right = problem(*shape, torch.float32)
    left = torch.zeros_like(left)
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        y = low_rank_linear(x, weight, left, right)
        assert y.dtype == dtype
        assert torch.equal(y, F.linear(x, weight))


def test_activations_may_be_laid_out_in_any_way() -> None:
    x, weight, left, right = problem(5, 7, 2, (3, 4))
    strided = x.detach().transpose(0, 1).contiguous().transpose(0, 1).requires_grad_()
    cotangent = torch.randn(4, 5, 3, dtype=x.dtype).permute(2, 0, 1)
    assert not strided.is_contiguous() and not cotangent.is_contiguous()
    found = torch.autograd.grad(
        low_rank_linear(strided, weight, left, right), (strided, left, right), cotangent
    )
    expected = torch.autograd.grad(F.linear(x, weight + left @ right), (x, left, right), cotangent)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("backward_under_autocast", [False, True])
def test_under_autocast_the_sum_is_rounded_once_and_gradients_are_float32(
    backward_under_autocast: bool,
) -> None:
    x, weight, left, right = problem(24, 16, 2, (4, 8), torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        y = low_rank_linear(x, weight, left, right)
    rounded = (weight + left @ right).bfloat16()
    assert torch.equal(y, F.linear(x.bfloat16(), rounded))
    cotangent = torch.randn(y.shape).to(y.dtype)
    with torch.autocast("cpu", torch.bfloat16, enabled=backward_under_autocast):
        found = torch.autograd.grad(y, (x, weight, left, right), cotangent)
    wide = [t.double() for t in (x, weight, left, right)]
    expected = torch.autograd.grad(
        F.linear(wide[0], wide[1] + wide[2] @ wide[3]), (x, weight, left, right), cotangent.double()
    )
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == torch.float32
        assert (one - other).norm() < 0.01 * other.norm()


class ShapesOfProducts(TorchDispatchMode):
    """Collects the shapes of all matrices that are computed by multiplication."""

    def __init__(self) -> None:
        super().__init__()
        self.shapes = set[tuple[int, ...]]()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> object:
        result = func(*args, **(kwargs or {}))
        if func in (torch.ops.aten.mm.default, torch.ops.aten.bmm.default):
            self.shapes.add(tuple(result.shape))
        return result


@pytest.mark.parametrize("weight_is_trained", [False, True])
def test_a_frozen_weight_costs_no_gradient_of_its_shape(weight_is_trained: bool) -> None:
    x, weight, left, right = problem(5, 7, 2, (30,))
    weight.requires_grad_(weight_is_trained)
    with ShapesOfProducts() as products:
        low_rank_linear(x, weight, left, right).sum().backward()  # type: ignore[no-untyped-call]
    assert ((5, 7) in products.shapes) == weight_is_trained


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # by dynamo
@pytest.mark.parametrize("tokens", [2, 30])
def test_it_compiles_to_one_graph_that_outlives_merges(tokens: int) -> None:
    torch._dynamo.reset()
    x, weight, left, right = problem(5, 7, 2, (tokens,))
    weight.requires_grad_(False)
    counter = CompileCounter()
    compiled = torch.compile(low_rank_linear, backend=counter, fullgraph=True)
    for _ in range(3):
        y = compiled(x, weight, left, right)
        torch.testing.assert_close(y, F.linear(x, weight + left @ right))
        y.sum().backward()  # type: ignore[no-untyped-call]
        with torch.no_grad():
            weight += left @ right
            left.zero_()
            right.normal_()
    assert counter.frame_count == 1


def test_a_backward_pass_inside_autocast_keeps_the_precision_of_the_forward_pass() -> None:
    gradients = []
    for inside in (False, True):
        inputs = problem(12, 9, 3, (40,), torch.float32)
        y = low_rank_linear(*inputs)
        with torch.autocast("cpu", torch.bfloat16, enabled=inside):
            gradients.append(torch.autograd.grad(y.square().sum(), inputs))
    for one, other in zip(*gradients, strict=True):
        assert torch.equal(one, other)


def test_the_sum_is_formed_for_many_tokens_only(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = []

    def factored(*inputs: Tensor) -> Tensor:
        taken.append(len(inputs[0]))
        return real(*inputs)

    real = module._factored
    monkeypatch.setattr(module, "_factored", factored)
    for tokens in (1, 4, 6, 60):  # the bound is 12 x 9 / (12 + 9), a little above 5
        low_rank_linear(*problem(12, 9, 3, (tokens,)))
    assert taken == [1, 4]
