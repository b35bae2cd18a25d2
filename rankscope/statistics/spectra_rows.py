"""Singular values of a results folder, chosen, scaled and counted for figures."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from rankscope.errors import RankscopeError
from rankscope.statistics.row_choice import in_order

MATRIX = ["run", "step", "layer", "role", "component", "head", "expert", "name"]
NEAR = 100  # how far below all that counts a noise floor may be and still be in the picture

PER_DECADE = 10


def bin_edges(low: float, high: float) -> NDArray[np.float64]:
    """Edges of bins from ``low`` or below to above ``high``, a tenth of a decade wide.

    They are whole tenths, so that panels and figures have the same bins.
    """
    first, last = np.floor(PER_DECADE * np.log10(low)), np.floor(PER_DECADE * np.log10(high)) + 1
    edges: NDArray[np.float64] = 10.0 ** (np.arange(first, last + 1) / PER_DECADE)
    return edges


def counts(
    values: pd.DataFrame, every: pd.DataFrame, edges: NDArray[np.float64], *, by_run: bool
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Values per matrix and bin of one series: those above the noise floor, and the others.

    Parameters
    ----------
    values
        The positive singular values.
    every
        All rows of the series, which say how many matrices there are, zero ones included.
    edges
        Edges of the bins, ascending; values outside do not count.
    by_run
        Whether the mean is over runs, each of which is a mean over its matrices.
    """
    matrix = [column for column in MATRIX if column in every.columns]
    matrices = every[matrix].drop_duplicates().groupby("run").size()
    if by_run:
        weights = 1 / (values["run"].map(matrices) * len(matrices))
    else:
        weights = pd.Series(1 / float(matrices.sum()), index=values.index)
    is_certain = (values["singular_value"] > values["noise_floor"]).to_numpy(bool)
    s, of = values["singular_value"].to_numpy(np.float64), weights.to_numpy(np.float64)
    certain, doubtful = (
        np.histogram(s[some], edges, weights=of[some])[0].astype(np.float64)
        for some in (is_certain, ~is_certain)
    )
    return certain, doubtful


def positive_values(spectra: pd.DataFrame) -> pd.DataFrame:
    """A copy of the singular values that a log axis can show."""
    if spectra.empty:
        raise RankscopeError("no spectra are stored of these matrices")
    positive = spectra[spectra["singular_value"] > 0].copy()
    if positive.empty:
        raise RankscopeError("no singular value is positive: there is no spectrum to draw")
    return positive


def over_largest(spectra: pd.DataFrame) -> pd.DataFrame:
    """Singular values over the largest of their ``matrix``, a number, by index from 1."""
    positive = positive_values(spectra)
    matrix = [column for column in MATRIX if column in positive.columns]
    largest = positive.groupby(matrix, dropna=False)["singular_value"].transform("max")
    for column in ("singular_value", "lower", "upper", "noise_floor"):
        positive[column] = positive[column] / largest
    positive["matrix"] = positive.groupby(matrix, dropna=False).ngroup()
    return positive.assign(index=positive["index"] + 1)


def lower_end(spectra: pd.DataFrame, hue: str) -> float:
    """Lower end of the axis: below all values above their floor, and below floors that are near."""
    is_above = spectra["singular_value"] > spectra["noise_floor"]
    counted = spectra[is_above] if is_above.any() else spectra
    least = 0.5 * float(counted["singular_value"].min())
    floors = spectra.groupby(hue)["noise_floor"].median()
    return min([least, *(0.5 * float(floor) for floor in floors if floor > least / NEAR)])


def early_middle_late(rows: pd.DataFrame) -> list[int]:
    """First, middle and last of the steps that all runs have, or of all if they share none."""
    by_run = [set(series) for _, series in rows.groupby("run")["step"]]
    steps = sorted(set.intersection(*by_run) or set.union(*by_run))
    return sorted({int(steps[0]), int(steps[len(steps) // 2]), int(steps[-1])})


def typical_roles(rows: pd.DataFrame) -> list[str]:
    """One role of attention and one of the MLP, as far as there are any."""
    roles = in_order(rows["role"])
    attention = next((role for role in ("v", "q", "k", "o") if role in roles), roles[0])
    mlp = next((role for role in ("down", "up", "gate") if role in roles), roles[-1])
    return list(dict.fromkeys([attention, mlp]))
