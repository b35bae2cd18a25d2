"""Whether the rows of a metrics table can be those of an analysis at all.

A table may have been changed since it was written, or come from another program. Rows that no
analysis writes would make a figure or a comparison fail, or be drawn as if they were true.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from rankscope.results.columns import KEY, WINDOW
from rankscope.results.table_file import TableFile

SHARES = (
    *("per", "per_resolved", "per_gaussian", "rank_utilisation"),
    *("svd_entropy", "entry_gini", "entry_hoyer"),
)
RANKS = ("effective_rank", "stable_rank", "participation_ratio")
SLACK = 1e-6  # of rounding


def check_rows(table: TableFile) -> None:
    """Check that every row describes one matrix at one step, with numbers that are possible.

    Raises
    ------
    ValueError
        If a row does not say what it describes, two describe the same, a step is negative, a share
        is not between 0 and 1, or a rank is negative or infinite.
    """
    for name in (*KEY[:2], "role", "component", "name", "status"):
        codes, _ = table.codes(name)
        if (codes == 0).any():
            raise ValueError(f"a row has no {name}")
    least, _ = table.range("step")
    if least < 0:
        raise ValueError(f"a row has the step {least:.0f}")
    for name in (*SHARES, *RANKS):
        least, greatest = table.range(name)
        most = 1 + SLACK if name in SHARES else np.finfo(float).max
        for end in (least, greatest):
            if end < -SLACK or end > most:
                raise ValueError(f"a row has the {name} {end:g}")
    groups = table.groups((*KEY, *WINDOW))
    ordered = np.sort(groups)
    if (ordered[1:] == ordered[:-1]).any():
        twice = pd.Series(groups).duplicated().to_numpy()
        one = table.frame(["step", "name"], twice).iloc[0]
        raise ValueError(f"two rows are of step {one['step']} of {one['name']}")
