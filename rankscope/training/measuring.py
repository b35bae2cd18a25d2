"""Loss and gradients of a run at one step, on sequences that are the same at every step."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from rankscope.training.config import Config
from rankscope.training.data.batches import iter_validation, random_sequences
from rankscope.training.data.corpus import Corpus
from rankscope.training.gradients import effective_gradients, mean_loss
from rankscope.training.keyed import keyed_generator
from rankscope.training.model import LanguageModel


class Measurements:
    """What is measured of a model; nothing here changes it."""

    def __init__(self, config: Config, corpus: Corpus, model: LanguageModel) -> None:
        self.config, self.corpus, self.model = config, corpus, model

    def validation_loss(self) -> float:
        """Loss on the held-out text, in nats a token."""
        batches = iter_validation(self.corpus, self.config.batch, self.config.log.validation_tokens)
        return mean_loss(self.model, (batch.to(self.config.device) for batch in batches))

    def probe_loss(self) -> float:
        """Loss on the probe, a few sequences of the training text."""
        return mean_loss(self.model, self._probe(self.config.log.probe_sequences))

    def probe_gradients(self) -> dict[str, Tensor]:
        """Gradients on the probe, see `effective_gradients`."""
        return effective_gradients(self.model, self._probe(self.config.log.probe_sequences))

    def cycle_gradients(self, cycle: int) -> dict[str, Tensor]:
        """Gradients on other sequences, by which the adapters of a cycle may be chosen."""
        sequences = self._probe(self.config.relora.probe_sequences, "cycle", cycle)
        return effective_gradients(self.model, sequences)

    def _probe(self, sequences: int, *key: str | int) -> Iterator[Tensor]:
        """As many at once as in training."""
        config = self.config
        generator = keyed_generator(config.seed, "probe", *key)
        batch = random_sequences(self.corpus, config.batch, sequences, generator)
        yield from torch.split(batch.to(config.device), config.batch.sequences_at_once)
