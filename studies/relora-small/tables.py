"""The study's tables: what rankscope measured, one row per cycle, per run and per arm.

A number of a run is over its matrices: a mean, or a median where a quantity spans decades. A number
of an arm is over its seeds: the mean, the least and the greatest.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

import rankscope as rs
from arms import Run, Scale

# Column here: component and column of rankscope's table, and how matrices are summarised.
MEASURES = {
    "per": ("weight", "per", "mean"),
    "per_resolved": ("weight", "per_resolved", "mean"),
    "condition_number": ("weight", "condition_number", "median"),
    "condition_number_r": ("weight", "condition_number_r", "median"),
    "condition_number_90": ("weight", "condition_number_90", "median"),
    "distance": ("cumulative_update", "relative_size", "mean"),
    "per_cumulative": ("cumulative_update", "per", "mean"),
    "per_update": ("update", "per", "mean"),
    "rank_update": ("update", "numerical_rank", "mean"),
    "condition_number_r_update": ("update", "condition_number_r", "median"),
    "per_gradient": ("gradient", "per", "mean"),
    "per_qk": ("qk", "per", "mean"),
    "per_ov": ("ov", "per", "mean"),
    "merged_rank": ("merged_total", "effective_rank", "mean"),
    "merged_bound": ("merged_total", "max_rank", "mean"),
    "merged_use": ("merged_total", "rank_utilisation", "mean"),
}
OVERLAP_OF = 4  # leading directions of successive merges
INTRUDERS_OF = 10  # leading directions of a weight


def cycle_table(results: rs.Results, every: int) -> pd.DataFrame:
    """One row per run and cycle: ranks, validation loss, and what a merge did.

    The row of cycle k is of the checkpoint at which it ends. Some arms restart one step later than
    others, so cycles and not steps are compared.
    """
    metrics = results.metrics.assign(cycle=lambda rows: rows["step"] // every)
    columns = {
        name: metrics[metrics["component"] == component].groupby(["run", "cycle"])[column].agg(how)
        for name, (component, column, how) in MEASURES.items()
    }
    weights = metrics[metrics["component"] == "weight"]
    bounds = weights["condition_number_status"] == "lower-bound"
    columns["condition_numbers_bounded"] = bounds.groupby([weights["run"], weights["cycle"]]).mean()
    training = results.training.assign(cycle=lambda rows: rows["step"] // every)
    losses = training.dropna(subset="validation_loss")
    columns["validation_loss"] = losses.groupby(["run", "cycle"])["validation_loss"].last()
    if "loss_after" in training:
        merges = training.dropna(subset="loss_after")
        jumps = merges["loss_after"] - merges["loss_before"]
        columns["loss_jump"] = jumps.groupby([merges["run"], merges["cycle"]]).last()
    columns |= _directions(results.subspaces, every)
    return pd.DataFrame(columns).rename_axis(["run", "cycle"]).reset_index()


def _directions(subspaces: pd.DataFrame, every: int) -> dict[str, pd.Series]:
    """Overlap of each merge with the one before, and intruders since the first step."""
    if subspaces.empty:
        return {}
    rows = subspaces.assign(cycle=subspaces["step"] // every, before=subspaces["against"] // every)
    merges = rows[(rows["component"] == "merge") & (rows["measure"] == "overlap")]
    merges = merges[(merges["k"] == OVERLAP_OF) & (merges["before"] == merges["cycle"] - 1)]
    found = {}
    for side, name in (("left", "column"), ("right", "row")):
        one = merges[merges["side"] == side].groupby(["run", "cycle"])
        found[f"overlap_{name}"] = one["value"].mean()
        found[f"overlap_{name}_chance"] = one["null"].mean()
    weights = rows[(rows["component"] == "weight") & (rows["measure"] == "intruders")]
    weights = weights[(weights["k"] == INTRUDERS_OF) & (weights["against"] == 0)]
    one = weights.groupby(["run", "cycle"])
    found["intruders"] = one["value"].mean()
    found["intruders_undecided"] = one["error"].mean()
    found["intruders_chance"] = one["null"].mean()
    return found


def run_table(cycles: pd.DataFrame, scores: pd.DataFrame, runs: Sequence[Run]) -> pd.DataFrame:
    """One row per run: its last cycle, its merges, and its scores."""
    order = {run.name: number for number, run in enumerate(runs)}
    means = ["overlap_column", "overlap_column_chance", "overlap_row", "overlap_row_chance"]
    rows = []
    for name, own in cycles[cycles["run"].isin(order)].groupby("run"):
        run = next(run for run in runs if run.name == name)
        # The last row of each column that has a value: merges end one cycle before the run.
        last = own.drop(columns=["run", "cycle", *means], errors="ignore").ffill().iloc[-1]
        row = {"run": name, "arm": run.arm, "rate": run.rate, "seed": run.seed}
        row.update((str(column), value) for column, value in last.items())
        for column in means:
            if column in own:
                row[column] = own[column].mean()
        if "loss_jump" in own:
            row["loss_jump"] = own["loss_jump"].mean()
            row["loss_jump_greatest"] = own["loss_jump"].max()
        rows.append(row)
    table = pd.DataFrame(rows).sort_values("run", key=lambda names: names.map(order))
    return table.merge(_scores(scores), on="run", how="left").reset_index(drop=True)


def _scores(scores: pd.DataFrame) -> pd.DataFrame:
    """One row per run: loss, perplexity, bits per byte and accuracies at the last step."""
    if scores.empty:
        return pd.DataFrame(columns=["run"])
    whole = scores[scores["group"] == "all"].copy()
    whole["column"] = whole["task"] + "_" + whole["metric"]
    wide = whole.pivot_table(index="run", columns="column", values="value")
    return wide.rename(columns=lambda name: re.sub(r"\W+", "_", name)).reset_index()


def arm_table(runs: pd.DataFrame) -> pd.DataFrame:
    """One row per arm and number: mean, least and greatest over the seeds, and how many."""
    numbers = runs.drop(columns=["run", "seed"]).melt(["arm", "rate"], var_name="number").dropna()
    found = numbers.groupby(["arm", "rate", "number"], sort=False)["value"]
    return found.agg(["mean", "min", "max", "count"]).reset_index()


def equal_loss_table(cycles: pd.DataFrame, runs: pd.DataFrame) -> pd.DataFrame:
    """PER of weights of every arm and of full rank, each at its best rate, at one loss.

    Of each seed, at the lowest validation loss that both runs reached after they began; between two
    checkpoints, values are interpolated.
    """
    rows = []
    for seed, of_seed in runs.groupby("seed"):
        full = _curve(cycles, of_seed.loc[of_seed["arm"] == "full", "run"].iloc[0])
        for other in of_seed[of_seed["arm"] != "full"].itertuples(index=False):
            curve = _curve(cycles, str(other.run))
            loss = max(full["validation_loss"].min(), curve["validation_loss"].min())
            if loss <= min(full["validation_loss"].iloc[0], curve["validation_loss"].iloc[0]):
                found = (_at_loss(full, loss), _at_loss(curve, loss))
                rows.append((other.arm, other.rate, seed, loss, *found))
    return pd.DataFrame(rows, columns=["arm", "rate", "seed", "loss", "per_full", "per"])


def _curve(cycles: pd.DataFrame, run: str) -> pd.DataFrame:
    return cycles[cycles["run"] == run].dropna(subset=["validation_loss", "per"])


def _at_loss(curve: pd.DataFrame, loss: float) -> float:
    """PER where a run first comes down to a loss."""
    x, y = curve["validation_loss"].to_numpy(), curve["per"].to_numpy()
    later = int(np.argmax(x <= loss))
    if later == 0:
        return float(y[0])
    share = (loss - x[later - 1]) / (x[later] - x[later - 1])
    return float(y[later - 1] + share * (y[later] - y[later - 1]))


def equal_distance_table(rates: pd.DataFrame, runs: pd.DataFrame) -> pd.DataFrame:
    """PER of weights at the end, of every run and of full rank where it has moved as far.

    How far full rank moves depends on its learning rate. Between the rates of the sweep, its PER is
    interpolated over the logarithm of the distance from the initial weights; beyond them, there is
    no row.
    """
    full = rates[rates["arm"] == "full"].sort_values("distance")
    full = full[full["seed"] == full["seed"].min()]
    others = runs[runs["arm"] != "full"]
    others = others[others["distance"].between(full["distance"].min(), full["distance"].max())]
    per_full = np.interp(np.log(others["distance"]), np.log(full["distance"]), full["per"])
    columns = ["arm", "rate", "seed", "distance", "per_full", "per"]
    return others.assign(per_full=per_full)[columns]


def arms_of(table: pd.DataFrame, runs: pd.DataFrame) -> pd.DataFrame:
    """Rows of a table with a column ``run``, with the arm, rate and seed of each run."""
    return table.merge(runs[["run", "arm", "rate", "seed"]], on="run", how="inner")


def role_table(metrics: pd.DataFrame, runs: pd.DataFrame, every: int) -> pd.DataFrame:
    """PER of weights by run, cycle, role and shape: means over layers."""
    weights = metrics[metrics["component"] == "weight"].assign(
        cycle=lambda rows: rows["step"] // every
    )
    keys = ["run", "cycle", "role", "rows", "cols"]
    means = weights.groupby(keys)["per"].mean().reset_index()
    return arms_of(means, runs)


def gaussian_table(metrics: pd.DataFrame) -> pd.DataFrame:
    """PER of Gaussian matrices of the weights' shapes: one row, their mean."""
    weights = metrics[metrics["component"] == "weight"]
    return weights[["per_gaussian"]].mean().to_frame().T


def finding_table(path: Path, runs: Sequence[Run]) -> pd.DataFrame:
    """One row per arm and finding of ``rankscope diagnose``: in how many of its runs it stands."""
    arms = {run.name: run.arm for run in runs}
    found = json.loads(path.read_text(encoding="utf-8"))["findings"]
    rows = pd.DataFrame(
        [
            (arms.get(one["run"], one["run"]), one["severity"], one["code"], one["run"])
            for one in found
        ],
        columns=["arm", "severity", "code", "run"],
    )
    return (
        rows.groupby(["arm", "severity", "code"], sort=False)["run"]
        .nunique()
        .reset_index(name="runs")
    )


def read_tables(folder: Path) -> dict[str, pd.DataFrame]:
    """The tables that `write_tables` wrote, by name."""
    return {path.stem: pd.read_csv(path) for path in sorted(folder.glob("*.csv"))}


def write_tables(
    scale: Scale, runs: Sequence[Run], best: Sequence[Run], every: int, out: Path
) -> None:
    """Write all tables of a scale as CSV."""
    out.mkdir(parents=True, exist_ok=True)
    results = rs.open_results(scale.results / "seeds")
    seeds = cycle_table(results, every)
    rates = cycle_table(rs.open_results(scale.results / "rates"), every)
    scores = rs.open_results(scale.results / "rates").evaluation
    of_best = run_table(seeds, scores, best)
    of_all = run_table(rates, scores, runs)
    tables = {
        "cycles": seeds,
        "rates": of_all,
        "runs": of_best,
        "arms": arm_table(of_best),
        "equal-loss": equal_loss_table(seeds, of_best),
        "equal-distance": equal_distance_table(of_all, of_best),
        "roles": role_table(results.metrics, of_best, every),
        "gaussian": gaussian_table(results.metrics),
        "correlations": pd.read_csv(scale.results / "correlations.csv"),
        "findings": finding_table(scale.results / "findings.json", best),
    }
    for name, table in tables.items():
        table.to_csv(out / f"{name}.csv", index=False, float_format="%.6g", lineterminator="\n")
