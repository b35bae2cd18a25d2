"""Numbers that the training logged, by run and step."""

from __future__ import annotations

import pandas as pd

from rankscope.statistics.row_choice import span_text

MEAN_OVER = 25
"""The running mean is over the longest run divided by this."""


def is_logged(training: pd.DataFrame, column: str) -> bool:
    """Whether any value of a quantity was logged."""
    return bool(logged_values(training, column).notna().any())


def counts_tokens(logged: pd.DataFrame) -> bool:
    """Whether every run logged how many tokens it read: only then is its loss per token."""
    return bool(logged_values(logged, "tokens").notna().groupby(logged["run"]).any().all())


def running_window(logged: pd.DataFrame) -> int:
    """Steps in the running mean: about a twenty-fifth of the longest run, 1, 2 or 5 times 10ᵏ.

    Never less than from one logged value to the next, which is then the number.
    """
    longest = int(logged["step"].max() - logged["step"].min())
    round_numbers = [digit * int(10**k) for k in range(9) for digit in (1, 2, 5)]
    window = max(n for n in round_numbers if n <= max(1, longest // MEAN_OVER))
    return max(window, *_spacings(logged), 1)


def usual_spacing(steps: pd.Series[int]) -> float:
    """Steps from one logged value to the next, as a rule; NaN for a single one."""
    return float(steps.drop_duplicates().sort_values().diff().median())


def logged_values(training: pd.DataFrame, column: str) -> pd.Series[float]:
    """A logged quantity as numbers, NaN where it was not logged."""
    if column not in training.columns:
        return pd.Series(float("nan"), index=training.index)
    return training[column].astype(float)


def by_run_and_step(series: pd.DataFrame, column: str) -> pd.DataFrame:
    """A logged quantity at the steps that all runs of a series have, one column per run."""
    values = logged_values(series, column).groupby([series["step"], series["run"]]).mean()
    wide: pd.DataFrame = values.dropna().unstack("run")
    return wide.dropna()


def spacing_text(logged: pd.DataFrame) -> str:
    """In words, how far apart the logged steps of the runs are."""
    known = _spacings(logged)
    if not known:
        return "as logged"
    return "logged every step" if {*known} == {1} else f"logged every {span_text(known)} steps"


def _spacings(logged: pd.DataFrame) -> list[int]:
    """The usual spacing of every run that logged several values."""
    spacings = [usual_spacing(rows["step"]) for _, rows in logged.groupby("run")]
    return [int(spacing) for spacing in spacings if spacing > 0]
