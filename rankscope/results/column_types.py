"""The types of the columns of a table that was read."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd


def with_types(table: pd.DataFrame, whole: Collection[str], text: Collection[str]) -> pd.DataFrame:
    """The table with integers, text and, in all other columns, floats; missing stays missing."""
    return table.astype({name: type_of(str(name), whole, text) for name in table})


def type_of(column: str, whole: Collection[str], text: Collection[str]) -> str:
    """Name of the type of a column."""
    import pandas as pd

    if column in whole:
        return "Int64"
    # Before its version 3, pandas makes the words "None" and "nan" of text that is missing.
    words = "str" if int(pd.__version__.split(".")[0]) >= 3 else "object"
    return words if column in text else "float64"


class Shared(dict[str, Any]):
    """What every selection of a table has in its ``attrs`` as one object: pandas copies them.

    Nobody may change it.
    """

    def __deepcopy__(self, _: object) -> Shared:
        return self
