"""The product of a frozen weight plus a low-rank delta with activations.

y = (W + L·R) x with W (out, in), L = scale·B (out, r), R = A (r, in); g = d loss / d y, n tokens.

For many tokens the sum is formed first: its r·out·in multiplications are few compared with the
n·out·in of the product with x, and one large product is faster than a large one, two slim ones and
an addition. The gradient gᵀx (out, in), which training W would need, is never formed: by the chain
rule

    d loss / d L = gᵀ (x Rᵀ),    d loss / d R = (g L)ᵀ x,    d loss / d x = g (W + L·R).
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from rankscope.training.precision import as_given, product_type


def low_rank_linear(x: Tensor, weight: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """``(weight + left @ right) x``; with ``left = 0`` equal to ``weight x`` to the last bit.

    Parameters
    ----------
    x
        Activations (..., in). Under autocast, they and the sum of the weights are rounded once to
        its dtype; the sum itself is formed in the dtype of the weights.
    weight
        W, (out, in). It gets a gradient only if it requires one.
    left, right
        The factors of the delta, (out, r) and (r, in), in the dtype of the weight.

    Returns
    -------
    (..., out).
    """
    x = x.to(product_type(x))
    out_features, in_features = weight.shape
    tokens = x.numel() // in_features
    if tokens * (out_features + in_features) < out_features * in_features:
        return _factored(x, weight, left, right)
    y: Tensor = _SummedLinear.apply(x, weight, left, right)  # type: ignore[no-untyped-call]
    return y


def _factored(x: Tensor, weight: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """The same for few tokens, where the sum would cost more than the products with the factors."""
    return F.linear(x, weight) + F.linear(F.linear(x, right), left)


def _weight_sum(weight: Tensor, left: Tensor, right: Tensor, dtype: torch.dtype) -> Tensor:
    return torch.addmm(weight, left, right).to(dtype)


class _SummedLinear(torch.autograd.Function):
    """Forms the sum again in the backward pass: keeping it would take a second model's memory."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, left: Tensor, right: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight, left, right)
        with as_given(x):
            return F.linear(x, _weight_sum(weight, left, right, x.dtype))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, left, right = ctx.saved_tensors
        for_x, for_weight, for_left, for_right = ctx.needs_input_grad
        d_x = d_weight = d_left = d_right = None
        with as_given(x):
            shape, (out_features, in_features) = x.shape, weight.shape
            g, x = gradients[0].reshape(-1, out_features), x.reshape(-1, in_features)
            if for_x:
                d_x = (g @ _weight_sum(weight, left, right, x.dtype)).view(shape)
            if for_weight:
                d_weight = (g.T @ x).to(weight.dtype)
            if for_left:  # with the slim matrix on the left: a third faster than the transpose
                d_left = ((x @ right.T.to(x.dtype)).T @ g).T.to(left.dtype)
            if for_right:
                d_right = ((g @ left.to(x.dtype)).T @ x).to(right.dtype)
        return d_x, d_weight, d_left, d_right
