"""The sentence of the answer on the loss at which the runs end."""

from __future__ import annotations

import pandas as pd

from rankscope.report.runs_in_words import each_run, in_words, last_rows, span
from rankscope.statistics.equal_loss import losses_of
from rankscope.statistics.replicates import RUN_GROUP

BATCHES = "training"  # losses of single batches, which scatter too much for a number at the end


def last_losses(evaluation: pd.DataFrame, training: pd.DataFrame, unit: str) -> str:
    """At which loss the runs end, of evaluated or else of validation text; empty without any.

    Of a group of runs, the least and the greatest.
    """
    losses = losses_of(evaluation, training)
    if losses.empty or (source := str(losses["source"].iloc[0])) == BATCHES:
        return ""
    rows = losses.assign(half=_half_intervals(losses, evaluation))
    if RUN_GROUP in evaluation:
        rows[RUN_GROUP] = rows["run"].map(_groups(evaluation) | _groups(training))
    ends = {name: last_rows(own) for name, own in each_run(rows)}
    steps = {name: int(last["step"].max()) for name, last in ends.items()}
    means = {name: float(last["loss"].mean()) for name, last in ends.items()}
    texts = {
        name: _text(last) + (f" at {unit} {steps[name]}" if len(set(steps.values())) > 1 else "")
        for name, last in ends.items()
    }
    has_intervals = rows["half"].notna().any()
    over = "; ± the 95 % interval over its documents" if has_intervals else ""
    return (
        f"The loss at the end is {in_words(means, texts)} (nats per token of {source} text{over})."
    )


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
