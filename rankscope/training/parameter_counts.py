"""How many parameters a run has and trains: those of the real model, made without memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from rankscope.training.adapters.cycles import Cycles
from rankscope.training.adapters.lora_linear import require_ranks, target_shapes, wrap
from rankscope.training.config import Config
from rankscope.training.model import LanguageModel, is_projection
from rankscope.training.schedule import Phase, timeline


@dataclass(frozen=True)
class ParameterCounts:
    """Parameters of one phase by what they are.

    Embedding and head are trained in full by every method, and in a small model they are most of
    what is trained. So the adapters are counted separately.
    """

    method: str
    steps: int  # of this phase
    embedding: int
    head: int  # 0 where it is tied to the embedding
    norms: int
    projections: int  # matrices of attention and MLP
    wrapped: int  # those of them that are frozen below an adapter
    adapters: int

    @property
    def total(self) -> int:
        """All parameters."""
        return self.embedding + self.head + self.norms + self.projections + self.adapters

    @property
    def trainable(self) -> int:
        """Parameters that the optimizer changes."""
        return self.total - self.wrapped

    @property
    def output(self) -> int:
        """Entries of the matrix that makes the logits, tied or not."""
        return self.head or self.embedding


def parameter_counts(config: Config, vocab_size: int) -> tuple[ParameterCounts, ...]:
    """Count the parameters of each phase of a run.

    Adapters are counted with ``adapter.rank``: of the rank policies, ``budget`` keeps to that
    number at most, and the others only begin with it.

    Parameters
    ----------
    config
        The run.
    vocab_size
        Rows of the embedding: ``model.vocab_size``, or the vocabulary size of the data if this is
        0.

    Raises
    ------
    WrongSettingError
        If the rank exceeds what a layer can have.
    """
    phases = timeline(config).phases
    ends = [phase.start for phase in phases[1:]] + [config.schedule.steps]
    return tuple(
        _counts(config, vocab_size, phase, end - phase.start)
        for phase, end in zip(phases, ends, strict=True)
    )


def add_adapters(model: LanguageModel, config: Config) -> None:
    """Wrap a model as the first low-rank phase of a run does, but with any A.

    Ranks that a policy chooses are bounded by each layer; a fixed one has to be possible.
    """
    shapes = target_shapes(model, config.adapter.target_modules)
    ranks = dict.fromkeys(shapes, config.adapter.rank)
    if config.relora.rank_policy != "fixed":
        ranks = {name: min(config.adapter.rank, *shape) for name, shape in shapes.items()}
    require_ranks(ranks, shapes)
    layer = Cycles(config).layer
    for name, rank in ranks.items():
        weight = model.get_submodule(name).get_parameter("weight")
        a = torch.rand(rank, weight.shape[1], device=weight.device)
        wrap(model, name, a, scale=config.adapter.scale(rank), make=layer)


def _counts(config: Config, vocab_size: int, phase: Phase, steps: int) -> ParameterCounts:
    with torch.device("meta"):
        model = LanguageModel(config.model, vocab_size)
        if phase.has_adapters:
            add_adapters(model, config)
    counts = dict.fromkeys(("embedding", "head", "norms", "projections", "wrapped", "adapters"), 0)
    for kind, size in _iter_kinds(model):
        counts[kind] += size
    return ParameterCounts(phase.method, steps, **counts)


def _iter_kinds(model: LanguageModel) -> Iterator[tuple[str, int]]:
    """Kind and size of every parameter; a frozen one has two kinds."""
    for name, parameter in model.named_parameters():
        if ".lora_" in name:
            kind = "adapters"
        elif is_projection(name):
            kind = "projections"
        elif parameter.ndim == 1:
            kind = "norms"
        else:
            kind = "head" if name == "lm_head.weight" else "embedding"
        yield kind, parameter.numel()
        if not parameter.requires_grad:
            yield "wrapped", parameter.numel()
