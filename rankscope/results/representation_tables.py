"""The tables of representations: their columns and types."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rankscope.representations.feature_metrics import FEATURE_COLUMNS
from rankscope.representations.probe_features import SIMILARITY_COLUMNS
from rankscope.results.column_types import with_types

if TYPE_CHECKING:
    import pandas as pd

PLACE = ("run", "step", "text", "features", "layer", "at")
AGAINST = ("comparison", "against_run", "against_step", "against_layer", "against_at")
PROBE = ("probe", "window", "documents")
REPRESENTATION_COLUMNS = (*PLACE, *PROBE, *FEATURE_COLUMNS)
SIMILARITY_TABLE_COLUMNS = (*PLACE, *AGAINST, *SIMILARITY_COLUMNS)
WHOLE = (
    *("step", "layer", "against_step", "against_layer"),
    *("window", "documents", "tokens", "dimensions"),
)
TEXT = (
    *("run", "text", "features", "at", "probe", "status"),
    *("comparison", "against_run", "against_at"),
)


def typed_representations(table: pd.DataFrame) -> pd.DataFrame:
    """A table of representations with all columns and their types."""
    return _typed(table, REPRESENTATION_COLUMNS)


def typed_similarities(table: pd.DataFrame) -> pd.DataFrame:
    """A table of similarities with all columns and their types."""
    return _typed(table, SIMILARITY_TABLE_COLUMNS)


def _typed(table: pd.DataFrame, columns: tuple[str, ...]) -> pd.DataFrame:
    return with_types(table.reindex(columns=list(columns)), WHOLE, TEXT)
