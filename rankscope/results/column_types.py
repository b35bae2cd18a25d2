"""The types of the columns of a table that was read."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd


def with_types(table: pd.DataFrame, whole: Collection[str], text: Collection[str]) -> pd.DataFrame:
    """The table with integers, text and, in all other columns, floats; missing stays missing."""
    import pandas as pd

    # Before its version 3, pandas makes the words "None" and "nan" of text that is missing.
    words = "str" if int(pd.__version__.split(".")[0]) >= 3 else "object"
    return table.astype(
        {name: "Int64" if name in whole else words if name in text else "float64" for name in table}
    )
