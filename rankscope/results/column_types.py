"""The types of the columns of a table that was read."""

from __future__ import annotations

from collections.abc import Collection

import pandas as pd

# Before its version 3, pandas makes the words "None" and "nan" of text that is missing.
TEXT_TYPE = "str" if int(pd.__version__.split(".")[0]) >= 3 else "object"


def with_types(table: pd.DataFrame, whole: Collection[str], text: Collection[str]) -> pd.DataFrame:
    """The table with integers, text and, in all other columns, floats; missing stays missing."""
    return table.astype(
        {
            name: "Int64" if name in whole else TEXT_TYPE if name in text else "float64"
            for name in table
        }
    )
