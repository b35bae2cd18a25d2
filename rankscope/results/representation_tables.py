"""The tables of representations: their columns and types."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rankscope.representations.feature_metrics import FEATURE_COLUMNS
from rankscope.representations.input_energy import INPUT_ENERGY_COLUMNS
from rankscope.representations.probe_features import SIMILARITY_COLUMNS
from rankscope.results.column_types import with_types

if TYPE_CHECKING:
    import pandas as pd

PLACE = ("run", "step", "text", "features", "layer", "at")
AGAINST = ("comparison", "against_run", "against_step", "against_layer", "against_at")
LOSS = ("loss", "against_loss", "loss_source")
PROBE = ("probe", "window", "documents")
WEIGHT = (
    *("run", "step", "text", "features", "layer", "role", "component", "name"),
    *("since", "span", "weight_share"),
)
REPRESENTATION_COLUMNS = (*PLACE, *PROBE, *FEATURE_COLUMNS)
SIMILARITY_TABLE_COLUMNS = (*PLACE, *AGAINST, *LOSS, *SIMILARITY_COLUMNS)
INPUT_ENERGY_TABLE_COLUMNS = (*WEIGHT, *PROBE, *INPUT_ENERGY_COLUMNS)
WHOLE = (
    *("step", "layer", "against_step", "against_layer", "since"),
    *("window", "documents", "tokens", "dimensions", "k"),
)
TEXT = (
    *("run", "text", "features", "at", "probe", "status"),
    *("comparison", "against_run", "against_at"),
    *("role", "component", "name", "span", "loss_source"),
)


def typed_representations(table: pd.DataFrame) -> pd.DataFrame:
    """A table of representations with all columns and their types."""
    return _typed(table, REPRESENTATION_COLUMNS)


def typed_similarities(table: pd.DataFrame) -> pd.DataFrame:
    """A table of similarities with all columns and their types."""
    return _typed(table, SIMILARITY_TABLE_COLUMNS)


def typed_input_energies(table: pd.DataFrame) -> pd.DataFrame:
    """A table of input energies with all columns and their types."""
    return _typed(table, INPUT_ENERGY_TABLE_COLUMNS)


def _typed(table: pd.DataFrame, columns: tuple[str, ...]) -> pd.DataFrame:
    return with_types(table.reindex(columns=list(columns)), WHOLE, TEXT)
