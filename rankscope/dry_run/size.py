"""How much memory a training step takes, and what a run leaves on the disk, without running it.

n tokens at once, L blocks, d hidden size, h intermediate size, d_kv size of all keys, V rows of the
embedding; a number takes 4 bytes, or 2 in bfloat16.
"""

from __future__ import annotations

from dataclasses import dataclass

from rankscope.training.config import Config
from rankscope.training.cross_entropy import LOGIT_BYTES
from rankscope.training.parameter_counts import ParameterCounts
from rankscope.training.run_folder.saves import dropped, is_saved
from rankscope.training.run_folder.state import KEPT_STATES
from rankscope.training.schedule import timeline


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes on the device by purpose; torch itself and what it reserves are not counted."""

    parameters: int  # float32
    gradients: int  # of the trained ones
    moments: int  # Adam's two
    activations: int  # what the backward pass needs of one micro-batch
    logits: int
    gradients_at_saves: int  # of all projections, frozen or not; instead of `gradients`

    @property
    def total(self) -> int:
        """The largest sum at any time."""
        lasting = self.parameters + self.moments + self.activations + self.logits
        return lasting + max(self.gradients, self.gradients_at_saves)


def memory_estimate(
    config: Config, counts: ParameterCounts, *, sequences: int, sequence_length: int
) -> MemoryEstimate:
    """Estimate the memory of a step of one phase.

    A trained parameter takes 16 bytes, a frozen one 4. For each token, the backward pass of a block
    needs, in float32,

        4 (8 d + 2 d_kv + 4 h) bytes:

    3 d for each norm (input, normalised, output), 2 d + 2 d_kv for attention (query, key, value,
    output) and 4 h for the MLP (gate, its SiLU, up, product). In bfloat16 it needs

        4 · 4 d + 2 (7 d + 2 d_kv + 4 h) bytes,

    since norms stay float32 and some tensors exist in both types, and 2 bytes per parameter for
    the converted matrices that are trained. Attention scores are never held, and an adapter adds
    only its rank. Outside the blocks there are 4 d numbers per token, the gradient of the head
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
        converted = 2 * (counts.projections - counts.wrapped + counts.output)
    chunk = min(4 * tokens * counts.output // d, LOGIT_BYTES[config.device])
    return MemoryEstimate(
        parameters=4 * counts.total,
        gradients=4 * counts.trainable,
        moments=8 * counts.trainable,
        activations=tokens * (model.num_hidden_layers * in_block + 4 * 4 * d) + converted,
        logits=2 * chunk + 4 * counts.output,
        gradients_at_saves=8 * counts.projections,
    )


@dataclass(frozen=True)
class DiskEstimate:
    """Bytes of a finished run, without logs and the headers of files."""

    checkpoints: int  # with weights, adapters and gradients
    merges: int
    states: int  # to resume from

    @property
    def total(self) -> int:
        """All of them."""
        return self.checkpoints + self.merges + self.states


def saved_steps(config: Config) -> list[int]:
    """Steps that have a checkpoint when the run is over."""
    log, line = config.log, timeline(config)
    saved = [step for step in range(config.schedule.steps + 1) if is_saved(step, log, line)]
    gone = dropped(saved, keep_last=log.keep_last, keep_every=log.keep_every)
    return sorted(set(saved).difference(gone))


def disk_estimate(config: Config, counts: tuple[ParameterCounts, ...]) -> DiskEstimate:
    """Add up what the parameters of each phase take, four bytes per number.

    A checkpoint holds every parameter and the gradients of the projections; a merge holds the
    adapters; each of the states that are kept holds every parameter of the last phase and two
    moments of the trained ones.
    """
    line = timeline(config)
    by_start = {phase.start: one for phase, one in zip(line.phases, counts, strict=True)}
    # What is saved at a boundary is from before it, so it belongs to the phase before.
    saved = [by_start[line.phase(max(step - 1, 0)).start] for step in saved_steps(config)]
    merged = [by_start[b.before.start].adapters for b in line.boundaries if b.merges]
    return DiskEstimate(
        checkpoints=4 * sum(one.total + one.projections for one in saved),
        merges=4 * sum(merged),
        states=4 * KEPT_STATES * (counts[-1].total + 2 * counts[-1].trainable),
    )
