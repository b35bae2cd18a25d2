"""The sentence of the answer on the loss: what restarts do to it, and where the runs end."""

from __future__ import annotations

import pandas as pd

from rankscope.report.runs_in_words import each_run, in_words, last_rows, span
from rankscope.statistics.equal_loss import losses_of
from rankscope.statistics.replicates import RUN_GROUP

BATCHES = "training"  # losses of single batches, which scatter too much for a number at the end
JUMP = ["loss_before", "loss_after"]
LEAST_JUMP = 0.0005  # of the loss, in nats: less is not worth a number


def loss_sentence(evaluation: pd.DataFrame, training: pd.DataFrame, unit: str) -> str:
    """What restarts did to the loss, and at which loss the runs end; empty without either."""
    said = "; ".join(filter(None, [_jumps(training), _ends(evaluation, training, unit)]))
    return f"{said[0].upper()}{said[1:]}." if said else ""


def _jumps(training: pd.DataFrame) -> str:
    if not {*JUMP} <= {*training.columns}:
        return ""
    largest, texts = {}, {}
    for name, own in each_run(training.dropna(subset=JUMP)):
        jumps = (own["loss_after"] - own["loss_before"]).astype(float)
        largest[name] = float(jumps.abs().max())
        low, high = (f"{end:+.3f}".replace("-", "−") for end in (jumps.min(), jumps.max()))
        texts[name] = f"by {low} to {high}" if low != high else f"by {low}"
        if largest[name] < LEAST_JUMP:
            texts[name] = "by less than 0.001"
    return f"a restart changed the loss on one batch {in_words(largest, texts)}" if texts else ""


def _ends(evaluation: pd.DataFrame, training: pd.DataFrame, unit: str) -> str:
    """The loss of evaluated, or else of validation text; of a group of runs, its range."""
    losses = losses_of(evaluation, training)
    if losses.empty or (source := str(losses["source"].iloc[0])) == BATCHES:
        return ""
    rows = losses.assign(half=_half_intervals(losses, evaluation))
    groups = _groups(evaluation) | _groups(training)
    if groups:
        rows[RUN_GROUP] = rows["run"].map(groups)
    ends = {name: last_rows(own) for name, own in each_run(rows)}
    steps = {name: int(last["step"].max()) for name, last in ends.items()}
    means = {name: float(last["loss"].mean()) for name, last in ends.items()}
    texts = {
        name: _text(last) + (f" at {unit} {steps[name]}" if len(set(steps.values())) > 1 else "")
        for name, last in ends.items()
    }
    over = "; ± the 95 % interval over its documents" if rows["half"].notna().any() else ""
    where = f"nats per token of {source} text{over}"
    return f"at the end the loss is {in_words(means, texts)} ({where})"


def _text(last: pd.DataFrame) -> str:
    half = float(last["half"].iloc[0])
    if len(last) > 1 or pd.isna(half):
        return span(last["loss"].tolist())
    return f"{last['loss'].iloc[0]:.3f} ± {half:.2g}"


def _half_intervals(losses: pd.DataFrame, evaluation: pd.DataFrame) -> list[float]:
    """Half the width of the interval of each loss; NaN where it was not evaluated."""
    whole = evaluation[(evaluation["group"] == "all") & (evaluation["metric"] == "loss")]
    halves = (whole["ci_high"] - whole["ci_low"]).astype(float) / 2
    known = dict(zip(zip(whole["run"], whole["step"], whole["task"], strict=True), halves,
                     strict=True))  # fmt: skip
    places = zip(losses["run"], losses["step"], losses["source"], strict=True)
    return [known.get(place, float("nan")) for place in places]


def _groups(table: pd.DataFrame) -> dict[str, str]:
    return dict(zip(table["run"], table[RUN_GROUP], strict=True)) if RUN_GROUP in table else {}
