"""Loss and gradients on a fixed batch: the same quantity whichever way the weights are trained."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from rankscope.training.model import LanguageModel, is_projection


@torch.no_grad()
def mean_loss(model: LanguageModel, batches: Iterator[Tensor]) -> float:
    """Mean negative log-likelihood in nats a token, every token counted alike, in eval mode."""
    total, tokens = 0.0, 0
    with evaluating(model):
        for batch in batches:
            every = torch.ones_like(batch[:, 1:], dtype=torch.bool)
            losses = model.token_losses(batch, every)
            total += float(losses.sum(dtype=torch.float64))
            tokens += len(losses)
    return total / tokens


def effective_gradients(model: LanguageModel, batches: Iterator[Tensor]) -> dict[str, Tensor]:
    """Gradient of the mean loss with respect to the effective weight of every projection.

    The effective weight of a wrapped layer is W + delta. The output depends on W and the delta by
    their sum alone, so the derivative with respect to W is the derivative with respect to the
    sum: a frozen W only has to ask for its gradient for the time being.

    Parameters
    ----------
    model
        Left as it was, ``.grad`` and ``requires_grad`` included.
    batches
        Sequences (b, t + 1), all of the same length.

    Returns
    -------
    ``<module>.weight`` to a float32 tensor of that weight's shape. Not clipped.
    """
    weights = {name: p for name, p in model.named_parameters() if is_projection(name)}
    sums = {name: torch.zeros_like(p) for name, p in weights.items()}
    sequences = 0
    with evaluating(model), _asking_for_gradients(list(weights.values())):
        for batch in batches:
            loss = model.loss(batch) * len(batch)
            for total, gradient in zip(
                sums.values(), torch.autograd.grad(loss, list(weights.values())), strict=True
            ):
                total += gradient
            sequences += len(batch)
    return {name: total / sequences for name, total in sums.items()}


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put a model into eval mode and back into the mode that it was in."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


@contextmanager
def _asking_for_gradients(parameters: list[nn.Parameter]) -> Iterator[None]:
    before = [p.requires_grad for p in parameters]
    try:
        for p in parameters:
            p.requires_grad_(True)
        yield
    finally:
        for p, required in zip(parameters, before, strict=True):
            p.requires_grad_(required)
