"""`weiss2025`: what one study of ReLoRA published, as tidy tables."""

from __future__ import annotations

from importlib.resources import files
from typing import TYPE_CHECKING, Literal, get_args

from rankscope.errors import WrongSettingError

if TYPE_CHECKING:
    import pandas as pd

Table = Literal["spectra", "blimp", "perplexity", "loss", "ewok", "cka", "scalars"]
Scale = Literal["tiny", "small"]
Model = Literal["decoder", "relora"]

ROLES = {
    "swiglu.w_2": "down",
    "attention.v_proj": "v",
    "attention.o_proj": "o",
    "ov_circuit": "o",
}
"""Role, in this package's words, of each published matrix."""
COMPONENTS = {
    "weight": "weight",
    "base_weight": "base",
    "gradient": "gradient",
    "lora_update": "adapter",
}
"""Component of each published tensor; OV circuits are ``ov-published`` instead."""
DOUBTS = {
    ("gradient", "per"): "scale as printed",
    ("gradient", "condition_number"): "scale as printed",
    ("lora_update", "per"): "holds rounding noise",
    ("lora_update", "condition_number"): "only rounding noise",
}
"""What is doubtful, by tensor and metric."""


def weiss2025(
    table: Table, *, scale: Scale | None = None, model: Model | None = None
) -> pd.DataFrame:
    """Return what Weiss et al. 2025 published about ReLoRA and full-rank training.

    Two models with 12 layers, ``tiny`` (width 96) and ``small`` (width 384), were trained for
    20 000 steps with full-rank updates (``decoder``) and by ReLoRA of rank 16 with a restart every
    2000 steps (``relora``).

    Parameters
    ----------
    table
        - ``spectra``: PER and condition numbers, means over 12 layers or the first or last six,
          with 95 % bootstrap intervals. ``component`` and ``role`` are those of this package's
          tables.
        - ``blimp``: accuracies; ``group`` as in the evaluation table. Like some of the other
          tables, it goes on beyond step 20 000.
        - ``perplexity``: of Paloma; ``loss``: the training loss, thinned where a figure thinned it.
        - ``ewok``, ``cka``, ``scalars``: accuracies that are all near chance, similarity of
          activations with those at the end, and single numbers.
    scale, model
        Only this scale or model.

    Returns
    -------
    One row per number, with columns ``step`` (but for ``scalars``), ``model``, ``scale`` and more.

    Raises
    ------
    WrongSettingError
        If there is no such table, scale or model.

    Notes
    -----
    The numbers are those of the repository Yu-val-weiss/relora-pico (commit db8c358, Apache
    License 2.0): evaluations from its JSON files, and the rest read from its vector PDFs, in which
    lines are stored as coordinates. Where both exist, they agree to 3e-6.

    Three things in the figures of spectra are not what they seem; ``doubt`` says where.

    - In every figure of weights, the decoder's two scales are exchanged: at step 0, the decoder
      printed as tiny has the very values of ReLoRA's small model, and the other way round, in all
      12 pairs of panels. ``scale`` is corrected, ``scale_printed`` is that of the figure. Figures
      of gradients and of CKA come from other runs, for which there is no such test: they are left
      as printed.
    - The rank of ``lora_update``, B·A, is at most 16, but its printed PER exceeds that of 16 equal
      values: the rest is rounding noise of the stored product.
    - For the same reason its condition numbers, 5e3 to 9e7, are nothing but noise.

    ReLoRA's weights are the frozen base alone (component ``base``), without the live adapter: at
    step 2000 they are still the initial ones. ``argument_structure`` of BLiMP includes
    ``s-selection``, as in BLiMP's paper and in `rankscope.evaluate`; the study has the two apart.

    References
    ----------
    Y. Weiss et al., *Investigating ReLoRA: Effects on the Learning Dynamics of Small Language
    Models*, BlackboxNLP 2025.

    Examples
    --------
    >>> import rankscope as rs
    >>> spectra = rs.published.weiss2025("spectra", scale="tiny")
    >>> last = spectra.query("component in ('weight', 'base') and step == 20000")
    >>> last.query("metric == 'per' and layers == 'all'")[["model", "role", "value"]]
          model  role     value
    ...  relora  down  0.874338
    ... decoder  down  0.958611
    """
    import pandas as pd

    _check("table", table, get_args(Table))
    with (files("rankscope.published") / "data" / f"{table}.csv").open(encoding="utf-8") as file:
        rows = pd.read_csv(file)
    if table == "blimp":
        rows = _long(rows)
    if table == "spectra":
        rows = _in_our_words(rows)
    for column, value, known in (("scale", scale, Scale), ("model", model, Model)):
        if value is not None:
            _check(column, value, get_args(known))
            # One test compares both scales, and one table has the scale as printed only.
            name = column if column in rows else f"{column}_printed"
            rows = rows[rows[name] == value]
    return rows.reset_index(drop=True)


def _check(setting: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise WrongSettingError(f"unknown `{setting}` {value!r}: choose from {', '.join(known)}")


def _long(blimp: pd.DataFrame) -> pd.DataFrame:
    """One row per accuracy instead of one column per group."""
    rows = blimp.melt(["step", "model", "scale"], var_name="group").dropna(subset=["value"])
    return rows.assign(task="blimp", metric="accuracy")[
        ["step", "model", "scale", "task", "group", "metric", "value"]
    ]


def _in_our_words(spectra: pd.DataFrame) -> pd.DataFrame:
    """The published rows with their component and role, and what is doubtful."""
    component = spectra["tensor"].map(COMPONENTS)
    circuits = spectra["matrix"] == "ov_circuit"
    doubts = [
        DOUBTS.get(place, "") for place in zip(spectra["tensor"], spectra["metric"], strict=True)
    ]
    return spectra.assign(
        component=component.mask(circuits, "ov-published"),
        role=spectra["matrix"].map(ROLES),
        doubt=doubts,
    )
