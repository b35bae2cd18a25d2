"""`feature_measures`: metrics of features as measures to correlate the ranks of weights with."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from rankscope.statistics.feature_rows import require_number

PREFIX = "features."
COLUMNS = ("run", "step", "task", "group", "metric", "value")


def feature_measures(
    representations: pd.DataFrame, metrics: str | Sequence[str] = ("rankme", "rankme_centred")
) -> pd.DataFrame:
    """Metrics of features, as a table that can replace an evaluation in `correlate`.

    Parameters
    ----------
    representations
        The table of `rankscope.represent`.
    metrics
        Its columns of numbers, such as ``alpha_req_centred``; one or several.

    Returns
    -------
    Columns ``run``, ``step``, ``task`` (the text, with `` last`` where only last tokens count),
    ``group`` (the kind of place: ``block``, ``attention``, …), ``metric`` (``features.`` and the
    name) and ``value``, the mean over layers: one row per run, step, text, kind of place and
    metric. Steps at which some layer has no number are left out.

    Raises
    ------
    WrongSettingError
        If there is no such column.

    Examples
    --------
    >>> import pandas as pd
    >>> import rankscope as rs
    >>> table = pd.DataFrame({"run": "full", "step": 100, "text": "novels", "features": "all",
    ...                       "layer": [0, 1], "at": "block", "rankme": [20.0, 10.0]})
    >>> rs.feature_measures(table, ["rankme"])
        run  step    task  group           metric  value
    0  full   100  novels  block  features.rankme   15.0
    """
    names = [metrics] if isinstance(metrics, str) else metrics
    for name in names:
        require_number(representations, name)
    is_last = representations["features"] == "last"
    texts = representations["text"].where(~is_last, representations["text"] + " last")
    keys = [representations["run"], representations["step"], texts, representations["at"]]
    parts = []
    for name in names:
        means = representations[name].groupby(keys).agg(lambda one: one.mean(skipna=False))
        means = means.dropna().rename_axis(["run", "step", "task", "group"])
        parts.append(means.rename("value").reset_index().assign(metric=PREFIX + name))
    if not parts:
        return pd.DataFrame(columns=list(COLUMNS))
    return pd.concat(parts, ignore_index=True)[list(COLUMNS)]
