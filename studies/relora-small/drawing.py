"""The study's figures, drawn from its tables alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

import rankscope as rs
from arms import Arm
from tables import arms_of

COLORS = {
    "full": "#000000",
    "relora": "#0072B2",
    "as-published": "#D55E00",
    "lora": "#56B4E9",
    "hybrid": "#009E73",
    "budget": "#CC79A7",
    "saturation": "#E69F00",
}
MARKERS = dict(zip(COLORS, "osDv^PX", strict=True))
GREY = "0.45"
HEADLINE = ("full", "relora", "as-published")
PUBLISHED = {"down": (96, 384), "v": (32, 96), "o": (96, 96)}  # shapes of the published ``tiny``
PUBLISHED_STEPS = 20_000
PUBLISHED_LOOKS = {
    "decoder": ("-", "full rank, published"),
    "relora": ("--", "ReLoRA without live adapter, published"),
}
LABELS = {
    "per": "PER of weights",
    "condition_number": "κ of weights",
    "validation_loss": "validation loss (nats)",
    "distance": "distance from initial weights, ‖W−W₀‖/‖W₀‖",
}


def draw_figures(tables: Mapping[str, pd.DataFrame], arms: Mapping[str, Arm], out: Path) -> None:
    """Draw every figure that the tables have data for, as PDF and PNG."""
    out.mkdir(parents=True, exist_ok=True)
    for name, draw in FIGURES.items():
        with rs.plots.paper_style("acl-text"):
            if (figure := draw(tables, arms)) is not None:
                rs.plots.save_figure(figure, out, name)
                plt.close(figure)


def over_training(tables: Mapping[str, pd.DataFrame], arms: Mapping[str, Arm]) -> Figure:
    """PER and κ of weights and the loss after each cycle: the three headline arms."""
    cycles = _with_arms(tables)
    figure, axes = plt.subplots(1, 3, figsize=_size(0.36), layout="constrained")
    for ax, column in zip(axes, ("per", "condition_number", "validation_loss"), strict=True):
        for arm in _present(HEADLINE, cycles):
            _line(ax, cycles[cycles["arm"] == arm], "cycle", column, arm, arms[arm].label)
        ax.set(xlabel="cycle", ylabel=LABELS[column])
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes[0].axhline(tables["gaussian"]["per_gaussian"].iloc[0], ls=":", color=GREY, lw=1)
    axes[1].set_yscale("log")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=3)
    return figure


def over_rates(tables: Mapping[str, pd.DataFrame], arms: Mapping[str, Arm]) -> Figure | None:
    """PER of weights, κ and loss at the end, over the learning rate: one seed of each."""
    rates = tables["rates"]
    counts = rates.groupby("arm")["rate"].nunique()
    main = [arm for arm in _present(COLORS, rates) if counts[arm] > 1]
    if not main:
        return None
    figure, axes = plt.subplots(1, 3, figsize=_size(0.42), layout="constrained")
    for ax, column in zip(axes, ("per", "condition_number", "validation_loss"), strict=True):
        for arm in main:
            own = rates[(rates["arm"] == arm)].groupby("rate")[column].first()
            ax.plot(own.index, own, color=COLORS[arm], marker=MARKERS[arm], label=arms[arm].label)
        ax.set_xscale("log", base=2)
        shown = sorted(rates["rate"].unique())
        ax.set_xticks(shown, [f"{1000 * rate:g}" for rate in shown])
        ax.minorticks_off()
        ax.set(xlabel="learning rate (10⁻³)", ylabel=LABELS[column])
    axes[1].set_yscale("log")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=4)
    return figure


def matched(tables: Mapping[str, pd.DataFrame], arms: Mapping[str, Arm]) -> Figure:
    """PER of weights against the distance from the initial weights, and against the loss."""
    cycles = _with_arms(tables)
    figure, axes = plt.subplots(1, 2, figsize=_size(0.5), layout="constrained", sharey=True)
    for ax, column in zip(axes, ("distance", "validation_loss"), strict=True):
        for arm in _present(COLORS, cycles):
            for _, own in cycles[cycles["arm"] == arm].groupby("run"):
                label = arms[arm].label if own["seed"].iloc[0] == cycles["seed"].min() else None
                style = {"color": COLORS[arm], "marker": MARKERS[arm], "label": label}
                ax.plot(own[column], own["per"], ms=3, lw=0.8, **style)
        ax.set(xlabel=LABELS[column], ylabel=LABELS["per"] if ax is axes[0] else "")
    axes[0].set_xscale("log", base=2)
    axes[0].xaxis.set_major_formatter("{x:g}")
    axes[1].invert_xaxis()
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=4)
    return figure


def merges(tables: Mapping[str, pd.DataFrame], arms: Mapping[str, Arm]) -> Figure:
    """Rank of all merges so far, overlap of each with the previous one, and the loss at merges."""
    cycles = _with_arms(tables)
    some = _present([arm for arm in COLORS if arm not in ("full", "lora")], cycles)
    figure, axes = plt.subplots(1, 3, figsize=_size(0.42), layout="constrained")
    for arm in some:
        own = cycles[cycles["arm"] == arm]
        _line(axes[0], own, "cycle", "merged_rank", arm, arms[arm].label)
        _line(axes[1], own, "cycle", "overlap_column", arm, arms[arm].label)
        _line(axes[2], own, "cycle", "loss_jump", arm, arms[arm].label)
    bound = cycles[cycles["arm"] == "relora"].groupby("cycle")["merged_bound"].mean()
    axes[0].plot(bound.index, bound, ls=":", color=GREY)
    chance = cycles[cycles["arm"] == "relora"]["overlap_column_chance"].mean()
    axes[1].axhline(chance, ls=":", color=GREY)
    axes[0].set(xlabel="cycle", ylabel="effective rank of the sum of merges")
    axes[1].set(xlabel="cycle", ylabel="overlap with the previous merge")
    axes[2].set(xlabel="cycle", ylabel="loss after − before a merge")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=5)
    return figure


def switches(tables: Mapping[str, pd.DataFrame], arms: Mapping[str, Arm]) -> Figure | None:
    """Every arm at its best rate: PER, κ, merged rank, loss; one dot per seed."""
    runs = tables["runs"]
    shown = [arm for arm in arms if arm in set(runs["arm"])]
    columns = {
        "per": LABELS["per"],
        "condition_number": LABELS["condition_number"],
        "merged_rank": "effective rank of\nthe sum of merges",
        "loss_jump_greatest": "greatest jump of\nthe loss at a merge",
        "validation_loss": LABELS["validation_loss"],
    }
    columns = {name: label for name, label in columns.items() if name in runs}
    figure, axes = plt.subplots(
        1, len(columns), figsize=_size(0.62), layout="constrained", sharey=True
    )
    for ax, (column, label) in zip(axes, columns.items(), strict=True):
        for place, arm in enumerate(shown):
            values = runs.loc[runs["arm"] == arm, column].dropna()
            ax.plot(
                values, [place] * len(values), "o", ms=3.5, color=COLORS.get(arm, GREY), alpha=0.8
            )
        for arm in _present(("full", "relora"), runs):
            ax.axvline(
                runs.loc[runs["arm"] == arm, column].mean(), color=COLORS[arm], lw=0.6, ls=":"
            )
        ax.set_xlabel(label)
        ax.locator_params(axis="x", nbins=3)
    axes[0].set_yticks(range(len(shown)), [arms[arm].label for arm in shown])
    axes[0].invert_yaxis()
    if "condition_number" in columns:
        axes[list(columns).index("condition_number")].set_xscale("log")
    return figure


def across_runs(tables: Mapping[str, pd.DataFrame], arms: Mapping[str, Arm]) -> Figure:
    """PER of weights against the loss at the end of every run, at all learning rates."""
    rates = tables["rates"]
    figure, ax = plt.subplots(figsize=_size(0.5), layout="constrained")
    for arm in [arm for arm in arms if arm in set(rates["arm"])]:
        own = rates[rates["arm"] == arm]
        color, marker = COLORS.get(arm, GREY), MARKERS.get(arm, ".")
        label = arms[arm].label if arm in COLORS else None
        x, y = own["per"], own["validation_loss"]
        ax.scatter(x, y, s=16, label=label, color=color, marker=marker)
    ax.scatter([], [], s=16, color=GREY, marker=".", label="ReLoRA with one switch")
    ax.set(xlabel=LABELS["per"], ylabel=LABELS["validation_loss"])
    ax.set_yscale("log")
    ax.yaxis.set_major_locator(MaxNLocator(5))
    ax.yaxis.set_major_formatter("{x:g}")
    ax.minorticks_off()
    figure.legend(loc="outside right center")
    return figure


def beside_published(tables: Mapping[str, pd.DataFrame], arms: Mapping[str, Arm]) -> Figure | None:
    """PER of weights over the share of training: ours over the published curves of one shape."""
    roles = tables["roles"]
    shapes = set(zip(roles["rows"], roles["cols"], strict=True))
    published = rs.published.weiss2025("spectra", scale="tiny").query(
        "metric == 'per' and layers == 'all' and component in ('weight', 'base')"
    )
    published = published[published["step"] <= PUBLISHED_STEPS]
    shown = [role for role in set(published["role"]) if PUBLISHED.get(role) in shapes]
    if not shown:
        return None
    figure, axes = plt.subplots(1, len(shown), figsize=_size(0.5), layout="constrained")
    for ax, role in zip(np.atleast_1d(axes), sorted(shown), strict=True):
        for model, (dashes, label) in PUBLISHED_LOOKS.items():
            own = published[(published["role"] == role) & (published["model"] == model)]
            share = own["step"] / PUBLISHED_STEPS
            ax.plot(share, own["value"], dashes, color="0.6", lw=1.5, label=label)
        for arm in _present(HEADLINE, roles):
            own = roles[(roles["arm"] == arm) & (roles["role"] == role)]
            own = own.assign(share=own["cycle"] / own["cycle"].max())
            _line(ax, own, "share", "per", arm, arms[arm].label)
        ax.set(xlabel="share of training", ylabel=f"PER of {role}")
    figure.legend(*ax.get_legend_handles_labels(), loc="outside upper center", ncols=3)
    return figure


FIGURES = {
    "over-training": over_training,
    "over-rates": over_rates,
    "matched": matched,
    "merges": merges,
    "switches": switches,
    "across-runs": across_runs,
    "beside-published": beside_published,
}


def _with_arms(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    return arms_of(tables["cycles"], tables["runs"])


def _present(names: Sequence[str] | Mapping[str, str], table: pd.DataFrame) -> Iterator[str]:
    return (name for name in names if name in set(table["arm"]))


def _line(ax: Axes, rows: pd.DataFrame, x: str, column: str, arm: str, label: str) -> None:
    """The mean over seeds, with a band from the least to the greatest."""
    if column not in rows:
        return
    found = rows.dropna(subset=column).groupby(x)[column].agg(["mean", "min", "max"])
    ax.plot(found.index, found["mean"], color=COLORS[arm], marker=MARKERS[arm], ms=3, label=label)
    if not np.allclose(found["min"], found["max"]):
        ax.fill_between(found.index, found["min"], found["max"], color=COLORS[arm], alpha=0.2, lw=0)


def _size(aspect: float) -> tuple[float, float]:
    width = rs.plots.WIDTHS["acl-text"]
    return width, aspect * width
