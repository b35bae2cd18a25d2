"""The first and the second half of a model's layers."""

from __future__ import annotations

import pandas as pd

from rankscope.errors import WrongSettingError
from rankscope.statistics.row_choice import span_text

HALF = "half of the layers"  # a column beside those of the table: no identifier
HALVES = ("first", "second")


def in_halves(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of the layers, with the half that each is in: ``first`` or ``second``.

    The layers are those of each run that the rows have. Where their number is odd, the middle one
    is in neither half and left out, and so are rows that belong to no layer.

    Raises
    ------
    WrongSettingError
        If no run has two layers.
    """
    rows = rows[rows["layer"].notna()]
    place = rows.groupby("run")["layer"].rank("dense")
    count = place.groupby(rows["run"]).transform("max")
    half = pd.Series("", index=rows.index).mask(place <= count // 2, HALVES[0])
    half = half.mask(place > (count + 1) // 2, HALVES[1])
    found = rows.assign(**{HALF: half})[half != ""]
    if found.empty:
        raise WrongSettingError("halves need two layers or more in `table`: there are fewer")
    return found


def layers_text(rows: pd.DataFrame, half: str, *, hue: str) -> str:
    """Which layers a half is, in words, by series if they differ.

    Parameters
    ----------
    rows
        Rows from `in_halves`.
    half
        ``first`` or ``second``.
    hue
        The column that identifies the series.
    """
    own = rows[rows[HALF] == half]
    texts = {str(name): _range(layers) for name, layers in own.groupby(hue)["layer"]}
    if len({*texts.values()}) == 1:
        return f"{half} half: {next(iter(texts.values()))}"
    return f"{half} half: " + ", ".join(f"{text} ({name})" for name, text in texts.items())


def _range(layers: pd.Series[int]) -> str:
    return f"layer{'s' * (layers.nunique() > 1)} {span_text(layers)}"
