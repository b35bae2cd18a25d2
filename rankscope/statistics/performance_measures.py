"""Which measures of performance figures show, of those that an evaluation has."""

from __future__ import annotations

import numpy as np
import pandas as pd

from rankscope.statistics.associations import FEWEST_PAIRS
from rankscope.statistics.correlation import KEY
from rankscope.statistics.quantities import quantity

PHENOMENON = "phenomenon:"
MAIN = ("perplexity", "loss", "accuracy")


def main_measures(evaluation: pd.DataFrame) -> list[tuple[str, str, str]]:
    """Task, group and metric of the main measure of each task, texts first."""
    whole = evaluation[evaluation["group"] == "all"]
    measures = [
        (str(task), "all", next(name for name in MAIN if name in there))
        for task, there in whole.groupby("task")["metric"].agg(set).items()
        if there & {*MAIN}
    ]
    return sorted(measures, key=lambda measure: (MAIN.index(measure[2]), measure[0]))


def phenomena(evaluation: pd.DataFrame) -> list[str]:
    """Groups of BLiMP that are phenomena, by name."""
    is_one = evaluation["group"].str.startswith(PHENOMENON) & (evaluation["task"] == "blimp")
    return sorted(set(evaluation.loc[is_one & (evaluation["metric"] == "accuracy"), "group"]))


def measures_to_draw(correlations: pd.DataFrame) -> list[tuple[str, str, str]]:
    """Measures to draw: without perplexities that say what the loss beside them says."""
    measured = [
        (str(task), str(group), str(metric))
        for task, group, metric in correlations[["task", "group", "metric"]]
        .drop_duplicates()
        .itertuples(index=False)
    ]
    return [
        (task, group, metric)
        for task, group, metric in measured
        if metric != "perplexity" or (task, group, "loss") not in measured
    ]


def has_run_points(metrics: pd.DataFrame, evaluation: pd.DataFrame) -> bool:
    """Whether there are enough runs with weights and an evaluation at a common step."""
    runs = {*metrics.loc[metrics["component"] == "weight", "run"].unique()} & {*evaluation["run"]}
    return len(runs) >= FEWEST_PAIRS


def of_one_measure(points: pd.DataFrame) -> pd.DataFrame:
    """Points of a loss if there is one, else of the first measure, in its own unit."""
    if points.empty:
        return points
    losses = points[points["metric"] == "loss"]
    first = (losses if len(losses) else points).iloc[0]
    same = np.logical_and.reduce([points[name] == first[name] for name in KEY])
    found = points[same]
    if str(first["metric"]).endswith("perplexity"):
        found = found.assign(performance=np.exp(found["performance"]))
    log = quantity(str(first["column"])).log
    return found.assign(rank=10.0 ** found["rank"]) if log else found
