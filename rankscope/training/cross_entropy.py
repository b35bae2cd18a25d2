"""The loss of a language model without the logits of all tokens at once.

The logits of n tokens over v words, and their gradient, are by far the largest tensors of a small
model: with n = 16,384 and v = 50,304 they take 3.3 GB each. Here they exist for a few tokens at a
time. A chunk's logits are at once turned into their gradient, softmax − one-hot, and this into the
chunk's part of the gradients of the hidden states and of the head; the backward pass only scales
these by d loss / n. Fused kernels do the same: Hsu et al. 2024, "Liger Kernel".

``torch.nn.functional.linear_cross_entropy`` (torch 2.13) would replace this file, but is slower
with many words. Milliseconds of forward and backward pass on a quiet machine, one thread, for this
file, the function as it comes, and with ``LinearCrossEntropyOptions()``; d is the hidden size:

    n      d    v          here   as it comes   with options
    4,096   96   4,096      214           332            188
    4,096  256   4,096      412           533            388
    2,048  256  16,384      852         1,056          1,458

``python -m benchmarks.cross_entropy`` measures it again.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from rankscope.training.precision import as_given, product_type

# Bytes of the logits of one chunk. On a CPU they should stay in the caches, and fresh memory is
# slow: with 50,304 words, chunks of 16 MiB take half the time of all at once. A GPU needs large
# products.
LOGIT_BYTES = {"cpu": 16 << 20, "cuda": 256 << 20}


def next_token_loss(
    hidden: Tensor, head: Tensor, targets: Tensor, *, logit_bytes: int | None = None
) -> Tensor:
    """Mean negative log-likelihood of the targets in nats per token, a scalar; float32 or better.

    Up to rounding, value and gradients are those of ``F.cross_entropy`` of the logits
    ``hidden @ head.T``.

    Parameters
    ----------
    hidden
        Hidden states (..., d). Under autocast, they and the head are rounded to its dtype for the
        products; softmax and loss are always float32 or better.
    head
        Weight of the output layer, (v, d).
    targets
        Ids of the words that follow, of the shape of ``hidden`` without its last axis.
    logit_bytes
        Size of a chunk's logits in float32, at least those of one token; a few tensors of that size
        exist at a time. None: by the device.

    Returns
    -------
    A scalar that can be differentiated once, not twice.
    """
    hidden = hidden.reshape(-1, hidden.shape[-1])
    targets = targets.reshape(-1)
    if not torch.is_grad_enabled():
        return next_token_losses(hidden, head, targets, logit_bytes=logit_bytes).mean()
    hidden, rows = hidden.to(product_type(hidden)), _rows(hidden, head, logit_bytes)
    loss: Tensor = _ChunkedLoss.apply(hidden, head, targets, rows)  # type: ignore[no-untyped-call]
    return loss


@torch.no_grad()
def next_token_losses(
    hidden: Tensor, head: Tensor, targets: Tensor, *, logit_bytes: int | None = None
) -> Tensor:
    """Negative log-likelihood of each of the targets in nats, (n,); float32 or better.

    Parameters and memory are those of `next_token_loss`, with hidden states (n, d) and targets
    (n,), where n may be 0. It cannot be differentiated.
    """
    rows = _rows(hidden, head, logit_bytes)
    hidden = hidden.to(product_type(hidden))
    weight = head.to(hidden.dtype).T
    # One buffer for the logits of all chunks: fresh memory for each takes a fifth of the time.
    buffer = hidden.new_empty(min(rows, len(hidden)), len(head))
    losses = [
        _losses(torch.mm(part, weight, out=buffer[: len(part)]), wanted)
        for part, wanted in _chunks(hidden, targets, rows)
    ]
    return torch.cat(losses)


def _losses(logits: Tensor, targets: Tensor) -> Tensor:
    """Logarithm of Σ exp(logits) minus the logit of the target, (n,); overwrites the logits.

    No loss is below 0, since the sum divided by its largest term is at least 1.
    """
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    target_logits = logits.gather(1, targets[:, None]).squeeze(1)
    largest = logits.amax(1)
    return logits.sub_(largest[:, None]).exp_().sum(1).log_() + (largest - target_logits)


def _rows(hidden: Tensor, head: Tensor, logit_bytes: int | None) -> int:
    if logit_bytes is None:
        logit_bytes = LOGIT_BYTES.get(hidden.device.type, LOGIT_BYTES["cuda"])
    return max(1, logit_bytes // (4 * len(head)))


def _chunks(hidden: Tensor, targets: Tensor, rows: int) -> Iterator[tuple[Tensor, Tensor]]:
    return zip(torch.split(hidden, rows), torch.split(targets, rows), strict=True)


def _logits(hidden: Tensor, head: Tensor) -> Tensor:
    logits = F.linear(hidden, head)
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def _add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    """Add ``left @ right`` in the dtype of the total, so that parts are not rounded twice."""
    if total.dtype == left.dtype:
        total.addmm_(left, right)
    else:
        total += left @ right


class _ChunkedLoss(torch.autograd.Function):
    """Computes the loss and its gradients in one pass over the tokens."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, head: Tensor, targets: Tensor, rows: int) -> Tensor:
        weight, d_hidden, losses = head.to(hidden.dtype), [], []
        d_head = torch.zeros_like(head)
        with as_given(hidden):
            for part, wanted in _chunks(hidden, targets, rows):
                log_p = _logits(part, weight).log_softmax(-1)
                loss = -log_p.gather(1, wanted[:, None])
                d_logits = log_p.exp_()
                d_logits.scatter_(1, wanted[:, None], torch.expm1(-loss))  # p − 1
                d_logits = d_logits.to(hidden.dtype)
                d_hidden.append(d_logits @ weight)
                _add_product(d_head, d_logits.T, part)
                losses.append(loss)
        ctx.save_for_backward(torch.cat(d_hidden), d_head)
        return torch.cat(losses).mean()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        d_hidden, d_head = ctx.saved_tensors
        scale = gradients[0] / len(d_hidden)
        return d_hidden * scale.to(d_hidden.dtype), d_head * scale.to(d_head.dtype), None, None
