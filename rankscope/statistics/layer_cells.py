"""A metric by layer and step, or by layer and head, as a table of cells."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd

from rankscope.errors import RankscopeError
from rankscope.statistics.replicates import none_in_common
from rankscope.statistics.row_choice import require_metric


def in_layers(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of matrices that belong to a layer."""
    inside = rows[rows["layer"].notna()]
    if inside.empty:
        raise RankscopeError("none of these matrices belongs to a layer: there is no map to draw")
    return inside


def layer_cells(
    rows: pd.DataFrame, column: str, *, across: str = "step", log: bool = False
) -> pd.DataFrame:
    """Mean (or median) of the finite values of each layer (index) and step (columns).

    Of several runs it is that of the runs, at the steps that all have. With ``head`` as ``across``,
    columns are the heads. Every layer, and every head, up to the last has a place.
    """
    require_metric(rows, column)
    finite = rows.assign(value=rows[column].astype(float).replace(np.inf, np.nan))
    runs = finite["run"].nunique()
    of_run = finite.groupby(["run", "layer", across])["value"]
    values = of_run.median() if log else of_run.mean()
    in_cell = values.groupby(["layer", across])
    values = (in_cell.median() if log else in_cell.mean())[in_cell.size() == runs]
    if values.empty:
        raise none_in_common(rows.assign(run_group="one map"), "run_group")
    cells = values.unstack(across).sort_index(axis="columns")
    cells = cells.reindex(index=_all_up_to_last(cells.index))
    return cells.reindex(columns=_all_up_to_last(cells.columns)) if across == "head" else cells


def cell_limits(maps: Iterable[pd.DataFrame], column: str) -> tuple[float, float]:
    """Least and greatest value of all the cells of maps of a column."""
    values = np.concatenate([cells.to_numpy(np.float64).ravel() for cells in maps])
    finite = values[np.isfinite(values)]
    if not finite.size:
        raise RankscopeError(f"no value of {column!r} is finite: there is no map to draw")
    return float(finite.min()), float(finite.max())


def _all_up_to_last(places: pd.Index) -> range:
    return range(int(places.min()), int(places.max()) + 1)
