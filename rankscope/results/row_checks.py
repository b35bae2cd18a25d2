"""Whether the rows of a metrics table can be those of an analysis at all.

A table may have been changed since it was written, or come from another program. Rows that no
analysis writes would make a figure or a comparison fail, or be drawn as if they were true.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from rankscope.results.columns import KEY, WINDOW

SHARES = (
    *("per", "per_resolved", "per_gaussian", "rank_utilisation"),
    *("svd_entropy", "entry_gini", "entry_hoyer"),
)
RANKS = ("effective_rank", "stable_rank", "participation_ratio")
SLACK = 1e-6  # of rounding


def check_rows(table: pd.DataFrame) -> None:
    """Check that every row describes one matrix at one step, with numbers that are possible.

    Parameters
    ----------
    table
        A metrics table with all its columns and their types.

    Raises
    ------
    ValueError
        If a row does not say what it describes, two describe the same, a step is negative, a share
        is not between 0 and 1, or a rank is negative or infinite.

    Examples
    --------
    >>> import rankscope as rs
    >>> table = rs.open_results("results").metrics
    >>> check_rows(table)
    >>> check_rows(table.assign(per=2.0))
    Traceback (most recent call last):
    ValueError: a row has the per 2
    """
    for name in (*KEY[:2], "role", "component", "name", "status"):
        if table[name].isna().any():
            raise ValueError(f"a row has no {name}")
    if (table["step"] < 0).any():
        raise ValueError(f"a row has the step {table['step'].min()}")
    for name in (*SHARES, *RANKS):
        values = table[name].to_numpy(float, na_value=np.nan)
        most = 1 + SLACK if name in SHARES else np.finfo(float).max
        wrong = values[(values < -SLACK) | (values > most)]
        if wrong.size:
            raise ValueError(f"a row has the {name} {wrong[0]:g}")
    twice = table.duplicated([*KEY, *WINDOW])
    if twice.any():
        one = table[twice].iloc[0]
        raise ValueError(f"two rows are of step {one['step']} of {one['name']}")
