"""Loss and gradients of a model, on sequences that are the same at every step."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from rankscope.keyed import keyed_generator
from rankscope.training.config import Config
from rankscope.training.data.batches import iter_validation, random_sequences
from rankscope.training.data.corpus import Corpus
from rankscope.training.model import LanguageModel, is_projection


class Probe:
    """Measures the model of a run without changing it."""

    def __init__(self, config: Config, corpus: Corpus, model: LanguageModel) -> None:
        self.config, self.corpus, self.model = config, corpus, model

    def validation_loss(self) -> float:
        """Loss on the held-out text, in nats per token."""
        batches = iter_validation(self.corpus, self.config.batch, self.config.log.validation_tokens)
        return mean_loss(self.model, (batch.to(self.config.device) for batch in batches))

    def loss(self) -> float:
        """Loss on the probe, a few sequences of the training text."""
        return mean_loss(self.model, self._sequences(self.config.log.probe_sequences))

    def gradients(self) -> dict[str, Tensor]:
        """Gradients on the probe, see `effective_gradients`."""
        return effective_gradients(self.model, self._sequences(self.config.log.probe_sequences))

    def cycle_gradients(self, cycle: int) -> dict[str, Tensor]:
        """Gradients by which the adapters of a cycle are chosen, on sequences of their own."""
        sequences = self._sequences(self.config.relora.probe_sequences, "cycle", cycle)
        return effective_gradients(self.model, sequences)

    def _sequences(self, count: int, *key: str | int) -> Iterator[Tensor]:
        """Batches of at most as many sequences as a forward pass has in training."""
        config = self.config
        generator = keyed_generator(config.seed, "probe", *key)
        batch = random_sequences(self.corpus, config.batch, count, generator)
        yield from torch.split(batch.to(config.device), config.batch.sequences_at_once)


@torch.no_grad()
def mean_loss(model: LanguageModel, batches: Iterator[Tensor]) -> float:
    """Mean negative log-likelihood in nats per token, in eval mode; every token counts alike."""
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

    The effective weight of a wrapped layer is W + delta. The output depends on W and the delta
    only through their sum, so the derivative with respect to W is the derivative with respect to
    the sum: it is enough that a frozen W asks for its gradient for as long as this takes.

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
    """Put a model into eval mode, and at the end back into the mode that it was in."""
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
