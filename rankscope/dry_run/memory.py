"""How much memory a training step takes, without taking it.

n tokens at once, L blocks, d hidden size, h intermediate size, d_kv size of all keys, V rows of the
embedding; a number is 4 bytes, or 2 in bfloat16.
"""

from __future__ import annotations

from dataclasses import dataclass

from rankscope.training.config import Config
from rankscope.training.cross_entropy import LOGIT_BYTES
from rankscope.training.parameter_counts import ParameterCounts


@dataclass(frozen=True)
class Memory:
    """Bytes on the device by what they are for; torch itself and what it sets aside come on top."""

    parameters: int  # float32
    gradients: int  # of the trained ones
    moments: int  # Adam's two
    activations: int  # what the backward pass needs of one micro-batch
    logits: int
    gradients_at_saves: int  # of all projections, frozen or not; instead of `gradients`

    @property
    def total(self) -> int:
        """The most at any time."""
        lasting = self.parameters + self.moments + self.activations + self.logits
        return lasting + max(self.gradients, self.gradients_at_saves)


def memory_estimate(
    config: Config, counts: ParameterCounts, *, sequences: int, sequence_length: int
) -> Memory:
    """Estimate the memory of a step of one phase.

    A trained parameter takes 16 bytes, a frozen one 4. The backward pass of a block needs for each
    token, in float32,

        4 (8 d + 2 d_kv + 4 h) bytes:

    3 d for each norm (input, normalised, output), 2 d + 2 d_kv for attention (query, key, value,
    output) and 4 h for the MLP (gate, its SiLU, up, product). In bfloat16 it is

        4 · 4 d + 2 (7 d + 2 d_kv + 4 h) bytes,

    since norms stay float32 and some tensors are there in both types, and 2 bytes a parameter for
    the converted matrices that are trained. Attention scores are never held, and an adapter adds
    only its rank. To this come 4 d numbers a token outside the blocks, the gradient of the head
    while the loss holds it, and twice a chunk of logits, of 4 n V bytes at most.

    Parameters
    ----------
    config, counts
        The run and its phase.
    sequences, sequence_length
        What is learned from at once: n is their product.
    """
    model, tokens = config.model, sequences * sequence_length
    d, h = model.hidden_size, model.intermediate_size
    d_kv = model.num_key_value_heads * model.head_dim
    in_block, converted = 4 * (8 * d + 2 * d_kv + 4 * h), 0
    if config.precision == "bfloat16":
        in_block = 4 * 4 * d + 2 * (7 * d + 2 * d_kv + 4 * h)
        converted = 2 * (counts.projections - counts.wrapped + counts.head)
    return Memory(
        parameters=4 * counts.total,
        gradients=4 * counts.trainable,
        moments=8 * counts.trainable,
        activations=tokens * (model.num_hidden_layers * in_block + 4 * 4 * d) + converted,
        logits=2 * min(4 * tokens * counts.head // d, LOGIT_BYTES[config.device]) + 4 * counts.head,
        gradients_at_saves=8 * counts.projections,
    )
