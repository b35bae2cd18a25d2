"""The result of a call with a results folder, computed now or recalled from an earlier one."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rankscope.checkpoints.skip import Skip
from rankscope.durable import sweep
from rankscope.errors import RankscopeError, RankscopeWarning
from rankscope.results.columns import STORES

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class CallResult(ABC):
    """The result of a call, computed now or recalled from an earlier one.

    Attributes
    ----------
    skips
        What has no result, and why.
    notes
        Remarks where nothing is missing.
    mended
        What was damaged in the store and recomputed: reported by this call only.
    computed
        Number of entries that were not in the store.
    key
        Digest of what the results depend on; None if something failed that may succeed on a retry.
    """

    skips: tuple[Skip, ...]
    notes: tuple[Skip, ...]
    mended: tuple[Skip, ...]
    computed: int
    key: str | None

    @property
    @abstractmethod
    def measured(self) -> int:
        """Number of results; where there is none, no table is written."""

    @property
    @abstractmethod
    def table(self) -> pd.DataFrame:
        """The requested rows."""


def sweep_results(out: Path | None) -> None:
    """Remove what killed calls left half written in a results folder and its stores."""
    if out is None:
        return
    stores = [out / name for name in STORES]
    for folder in [out, *stores, *(below for store in stores for below in store.rglob("*/"))]:
        sweep(folder)


def reported(found: CallResult, *, nothing: str | None = None) -> pd.DataFrame:
    """The table of a call from Python, with what was skipped as a warning.

    Raises
    ------
    RankscopeError
        If nothing was measured, where ``nothing`` says so.
    """
    if nothing is not None and not found.measured:
        skips = found.skips
        raise RankscopeError(f"{nothing}; {len(skips)} skipped, the first: {skips[0]}")
    table = found.table
    if found.notes or found.mended:
        table.attrs["notes"] = [vars(note) for note in (*found.mended, *found.notes)]
    if found.skips:
        table.attrs["skipped"] = [vars(skip) for skip in found.skips]
        message = f"{len(found.skips)} skipped, the first: {found.skips[0]}"
        warnings.warn(message, RankscopeWarning, stacklevel=3)
    if not found.measured and found.notes:
        message = f"nothing was measured: {found.notes[-1]}"
        warnings.warn(message, RankscopeWarning, stacklevel=3)
    return table
