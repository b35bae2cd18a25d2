"""The table of evaluations: one row a number."""

from __future__ import annotations

import pandas as pd

EVALUATION_FILE = "evaluation.parquet"
COLUMNS = ("run", "step", "task", "group", "metric", "value", "ci_low", "ci_high", "n")
_WHOLE, _TEXT = ("step", "n"), ("run", "task", "group", "metric")


def typed(table: pd.DataFrame) -> pd.DataFrame:
    """The columns with the types that every such table has."""
    types = {
        name: "Int64" if name in _WHOLE else "str" if name in _TEXT else "float64"
        for name in COLUMNS
    }
    return table.astype(types)
