"""How a run differs from the two published programs for pre-training with ReLoRA.

These are Guitaricet/relora of Lialin et al. 2023 (arXiv:2307.05695) and relora-pico of Weiss et al.
2025 (arXiv:2509.12960), as the programs run; `PublishedConfig` has the details.
"""

from __future__ import annotations

from collections.abc import Iterator

from rankscope.training.config import Config, OptimizerConfig
from rankscope.training.schedule import timeline

LIALIN, WEISS = "Lialin et al. 2023", "Weiss et al. 2025"
PRUNED = 0.999  # of the adapters' moments, at every restart
DROPOUT = 0.1
BETA2 = 0.999
WEISS_DECAY, LIALIN_CLIP = 0.01, 1.0


def departures(config: Config) -> list[str]:
    """List what a run does differently from the published programs, one short line each.

    A published behaviour that is switched on is not listed, nor is anything that cannot matter in
    this run, such as merges where there are none. Shape, data and length are not compared. A run
    without adapters has no differences.
    """
    if not config.has_adapters:
        return []
    return [*_of_adapters(config), *_of_restarts(config), *_of_optimizer(config.optimizer)]


def _of_adapters(config: Config) -> Iterator[str]:
    published, relora = config.relora.published, config.relora
    if published.dropout != DROPOUT:
        ours = f"dropout {published.dropout:g}" if published.dropout else "no dropout"
        yield f"{ours} before the adapters (both: {DROPOUT:g})"
    if not published.zero_factors:
        yield "only B is zero at first (both: A = B = 0, so they learn nothing until a restart)"
    if config.adapter.rank_stabilised:
        yield "scale = alpha / sqrt(rank) (both: alpha / rank)"
    if relora.rank_policy != "fixed":
        yield f"ranks by the policy {relora.rank_policy!r} (both: fixed)"
    if relora.a_init != "random":
        yield f"A chosen by {relora.a_init!r} (both: random)"
    if config.precision == "float32":
        yield "forward pass in float32 (both: bfloat16)"
    yield f"parameters and Adam's moments in float32 ({LIALIN}: bfloat16)"


def _of_restarts(config: Config) -> Iterator[str]:
    """Differences that matter only where adapters are merged or restart."""
    published, boundaries = config.relora.published, timeline(config).boundaries
    scale_is_one = config.relora.rank_policy == "fixed" and (
        config.adapter.scale(config.adapter.rank) == 1
    )
    if any(boundary.merges for boundary in boundaries):
        if not (published.merge_without_scale or scale_is_one):
            yield f"a merge adds scale · B·A ({WEISS}: B·A)"
        if not published.merge_in_bfloat16:
            yield "a merge adds in float64 and rounds once to float32 (both: bfloat16)"
    if any(boundary.event == "restart" for boundary in boundaries):
        if not published.factors_survive:
            yield f"new A and B stay after a restart ({WEISS}: DeepSpeed's copies overwrite them)"
        if published.pruned_moments != PRUNED:
            pruned = f"{published.pruned_moments:.1%} of Adam's moments of A and B pruned"
            ours = pruned if published.pruned_moments else "Adam's state of A and B deleted"
            yield f"{ours} at a restart (both: {PRUNED:.1%} of it pruned at random)"
    if not published.zero_rate_step:
        yield "no step has rate 0 (both: the first one, and one per cycle)"


def _of_optimizer(optimizer: OptimizerConfig) -> Iterator[str]:
    if optimizer.beta2 != BETA2:
        yield f"Adam's beta2 {optimizer.beta2:g} (both: {BETA2:g})"
    if optimizer.weight_decay != WEISS_DECAY:
        others = f"{WEISS}: {WEISS_DECAY:g}"
        others += f"; {LIALIN}: 0" if optimizer.weight_decay else ""
        yield f"weight decay {optimizer.weight_decay:g} ({others})"
    if optimizer.clip:
        others = f"{WEISS}: none"
        others += f"; {LIALIN}: {LIALIN_CLIP:g}" if optimizer.clip != LIALIN_CLIP else ""
        yield f"gradients clipped at norm {optimizer.clip:g} ({others})"
