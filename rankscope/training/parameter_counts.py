"""How many parameters a run has and trains, without making any of them.

d hidden size, h intermediate size, d_kv size of all keys, V rows of the embedding, r rank.
"""

from __future__ import annotations

from dataclasses import dataclass

from rankscope.training.adapters.lora_linear import require_ranks
from rankscope.training.config import Config, ModelConfig
from rankscope.training.schedule import timeline


@dataclass(frozen=True)
class ParameterCounts:
    """Parameters of one phase by what they are.

    Embedding and head are trained in full by every method, and in a small model they are most of
    what is trained. So the adapters are counted apart.
    """

    method: str
    steps: int  # of this phase
    embedding: int
    head: int
    norms: int
    projections: int  # matrices of attention and MLP
    wrapped: int  # those of them that are frozen below an adapter
    adapters: int

    @property
    def total(self) -> int:
        """All of them."""
        return self.embedding + self.head + self.norms + self.projections + self.adapters

    @property
    def trainable(self) -> int:
        """Those that the optimizer changes."""
        return self.total - self.wrapped


def parameter_counts(config: Config, vocab_size: int) -> tuple[ParameterCounts, ...]:
    """Count the parameters of each phase of a run.

    A block has 2 d² + 2 d d_kv + 3 d h parameters in its projections and 2 d in its norms; an
    adapter has r (in + out). Adapters are counted with ``adapter.rank``: of the rank policies,
    ``budget`` keeps to that number at most, the others only begin with it.

    Parameters
    ----------
    config
        The run.
    vocab_size
        V: ``model.vocab_size``, or that of the data where this is 0.

    Raises
    ------
    RankscopeError
        If the rank exceeds what a layer can have.
    """
    d, layers = config.model.hidden_size, config.model.num_hidden_layers
    shapes = projection_shapes(config.model)
    targets = {name: shapes[name] for name in config.adapter.target_modules}
    ranks = dict.fromkeys(targets, config.adapter.rank)
    if config.relora.rank_policy != "fixed":  # these keep to each layer's own bound
        ranks = {name: min(config.adapter.rank, *shape) for name, shape in targets.items()}
    if config.has_adapters:
        require_ranks(ranks, targets)
    adapters = layers * sum(ranks[name] * sum(shape) for name, shape in targets.items())
    wrapped = layers * sum(out * into for out, into in targets.values())
    phases = timeline(config).phases
    ends = [phase.start for phase in phases[1:]] + [config.schedule.steps]
    return tuple(
        ParameterCounts(
            method=phase.method,
            steps=end - phase.start,
            embedding=vocab_size * d,
            head=vocab_size * d,
            norms=(2 * layers + 1) * d,
            projections=layers * sum(out * into for out, into in shapes.values()),
            wrapped=wrapped if phase.has_adapters else 0,
            adapters=adapters if phase.has_adapters else 0,
        )
        for phase, end in zip(phases, ends, strict=True)
    )


def projection_shapes(model: ModelConfig) -> dict[str, tuple[int, int]]:
    """(out, in) of the projections of one block."""
    d, h = model.hidden_size, model.intermediate_size
    d_kv = model.num_key_value_heads * model.head_dim
    return {
        "q_proj": (d, d),
        "k_proj": (d_kv, d),
        "v_proj": (d_kv, d),
        "o_proj": (d, d),
        "gate_proj": (h, d),
        "up_proj": (h, d),
        "down_proj": (d, h),
    }
