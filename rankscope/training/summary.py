"""What a run is about to do, in a few lines for the person who started it."""

from __future__ import annotations

from rankscope.training.config import Config
from rankscope.training.data import Corpus
from rankscope.training.model import LanguageModel, is_projection
from rankscope.training.schedule import restarts_before


def parameter_counts(model: LanguageModel) -> dict[str, int]:
    """Count parameters by what they are and whether they are trained.

    Adapters are a small part of what a low-rank run trains in a small model: embeddings and head
    are trained in full. So they are counted apart.
    """
    counts = dict.fromkeys(("total", "trainable", "projections", "adapters", "embeddings"), 0)
    for name, parameter in model.named_parameters():
        counts["total"] += parameter.numel()
        counts["trainable"] += parameter.numel() if parameter.requires_grad else 0
        counts["projections"] += parameter.numel() if is_projection(name) else 0
        counts["adapters"] += parameter.numel() if ".lora_" in name else 0
        counts["embeddings"] += parameter.numel() if "embed" in name or "head" in name else 0
    return counts


def summary(config: Config, corpus: Corpus, model: LanguageModel) -> list[str]:
    """Lines to print before the first step."""
    n, schedule = parameter_counts(model), config.schedule
    restarts = restarts_before(schedule.steps, schedule)
    return [
        f"{config.method}: {n['total']:,} parameters, {n['trainable']:,} trainable "
        f"(projections {n['projections']:,}, adapters {n['adapters']:,}, "
        f"embedding and head {n['embeddings']:,})",
        f"{schedule.steps:,} steps of {config.batch.tokens:,} tokens, {restarts} restarts, "
        f"learning rate {schedule.learning_rate:g}",
        f"{config.data.source}: {len(corpus.training):,} tokens to train on, "
        f"{len(corpus.validation):,} to validate on, vocabulary {corpus.vocab_size:,}",
        f"writing to {config.out}",
    ]
