"""Metrics of your own: columns of the table that functions compute from the stored spectra."""

from __future__ import annotations

import inspect
import math
import warnings
from collections.abc import Callable, Hashable
from contextlib import suppress
from numbers import Real
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pandas as pd

from rankscope.errors import RankscopeWarning, WrongSettingError, printable
from rankscope.results.columns import COLUMNS
from rankscope.results.measure import has_ranks
from rankscope.results.stored_rows import by_step, is_skipped, places
from rankscope.spectra.bounds import Values
from rankscope.spectra.spectrum import Spectrum

# Takes the singular values, and the shape of the matrix if it has a parameter of that name.
OwnMetric: TypeAlias = Callable[..., float]
OwnMetrics: TypeAlias = tuple[tuple[str, OwnMetric], ...]
# A threshold shows only where values cross it; a sum plus 1e-12 must not be moved by much.
OTHER_SCALES = (2.0**-10, 2.0**10)


def require_new(name: str, own: OwnMetrics) -> None:
    """Check the name of a new column.

    Raises
    ------
    WrongSettingError
        If there is such a column already, or the name is not an identifier.
    """
    if name in COLUMNS or name in dict(own):
        raise WrongSettingError(f"the table has a column {name!r} already: choose another `name`")
    if not name.isidentifier():
        raise WrongSettingError(f"`name` is {name!r}: give letters, digits and underscores")


def with_own(table: pd.DataFrame, folder: Path, own: OwnMetrics) -> pd.DataFrame:
    """The table with a column of each metric; each file of the store is read once.

    Parameters
    ----------
    folder
        The spectra store.

    Raises
    ------
    WrongSettingError
        If a function fails, or gives something that is not a number.
    RankscopeError
        If a file of the store is damaged.
    """
    values: dict[Hashable, list[float]] = {}
    missing = 0
    for run, step, rows, entries in by_step(table, folder):
        for index, place, skipped in zip(rows.index, places(rows), is_skipped(rows), strict=True):
            entry = entries.get(place)
            if entry is None:
                missing += not skipped
            elif has_ranks(entry.spectrum):
                component, name, head, *_ = place
                of_head = "" if head is None else f", head {head}"
                at = printable(f"{component} {name}{of_head} of {run} at step {step}")
                values[index] = [_value(one, function, entry.spectrum, at) for one, function in own]
    if missing:
        message = f"{printable(str(folder))}: lacks {missing} spectra that the table has rows of"
        warnings.warn(
            f"{message}: `rankscope analyze` computes them", RankscopeWarning, stacklevel=4
        )
    columns = pd.DataFrame.from_dict(values, orient="index", columns=[name for name, _ in own])
    return table.join(columns.astype("float64"))


def _value(name: str, function: OwnMetric, spectrum: Spectrum, at: str) -> float:
    """The value of the function; NaN where it is not known."""
    value = _called(name, function, spectrum.values, spectrum.shape, at)
    if spectrum.is_scaled:
        return value
    # The matrix is known up to a factor: a number that depends on it is not a number of the matrix.
    others = (
        _called(name, function, scale * spectrum.values, spectrum.shape, at)
        for scale in OTHER_SCALES
    )
    is_known = all(math.isclose(value, other, rel_tol=1e-9) for other in others)
    return value if is_known else math.nan


def _called(
    name: str, function: OwnMetric, values: Values, shape: tuple[int, int], at: str
) -> float:
    try:
        with np.errstate(divide="ignore", invalid="ignore"):  # inf and NaN are answers
            given = function(values.copy(), **({"shape": shape} if _takes_shape(function) else {}))
    except Exception as error:
        why = printable(f"{type(error).__name__}: {error}")
        raise WrongSettingError(f"the metric {name!r} failed for {at}: {why}") from error
    number = (
        given.item() if isinstance(given, np.ndarray | np.generic) and given.size == 1 else given
    )
    with suppress(OverflowError):  # of an integer
        if isinstance(number, Real):
            return float(number)
    shown = printable(repr(given), limit=80)
    raise WrongSettingError(f"the metric {name!r} gave {shown} for {at}: return one number")


def _takes_shape(function: OwnMetric) -> bool:
    try:
        return "shape" in inspect.signature(function).parameters
    except ValueError:  # a function of C without a signature
        return False
