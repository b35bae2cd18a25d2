"""What figures are drawn from."""

from __future__ import annotations

from typing import Protocol

import pandas as pd


class Results(Protocol):
    """The tables of one study, as `rankscope.analysis.table.open_results` gives them."""

    @property
    def metrics(self) -> pd.DataFrame:
        """One row a matrix a step."""

    @property
    def training(self) -> pd.DataFrame:
        """One row a logged step of training; empty if nothing was logged."""

    @property
    def evaluation(self) -> pd.DataFrame:
        """One row a measure of performance a step; empty if nothing was evaluated."""

    def spectra(
        self,
        component: str,
        *,
        run: str | None = None,
        step: int | None = None,
        layer: int | None = None,
        role: str | None = None,
    ) -> pd.DataFrame:
        """One row a singular value of the chosen matrices."""
