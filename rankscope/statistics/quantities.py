"""What a figure must know about each column of the metrics table: its label and scale."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd


@dataclass(frozen=True)
class Quantity:
    """How a column is labelled, summarised over matrices and drawn.

    Attributes
    ----------
    label
        Axis label, with the symbol or formula that defines the quantity.
    log
        Spans decades: drawn on a log axis and summarised by median and quantiles, since the largest
        value would dominate a mean. Others are summarised by mean, minimum and maximum.
    tail
        Depends on small singular values, so that rounding noise may move it.
    error
        The column that bounds its error, if there is one.
    is_relative
        Whether that is a bound on the relative error.
    """

    label: str
    log: bool = False
    tail: bool = False
    error: str = ""
    is_relative: bool = False

    @property
    def symbol(self) -> str:
        """The label without its formula."""
        symbol = self.label.partition(" = ")[0]
        return symbol + "$" * (symbol.count("$") % 2)


QUANTITIES = {
    "effective_rank": Quantity("effective rank", tail=True, error="per_error", is_relative=True),
    "per": Quantity(
        "PER = effective rank / min(m, n)", tail=True, error="per_error", is_relative=True
    ),
    "per_resolved": Quantity("PER of the values above the noise floor"),
    "rank_utilisation": Quantity(
        "effective rank / largest possible rank", tail=True, error="per_error", is_relative=True
    ),
    "stable_rank": Quantity("stable rank", tail=True),
    "participation_ratio": Quantity("participation ratio", tail=True),
    "svd_entropy": Quantity("SVD entropy"),
    "energy_rank_90": Quantity("singular values that hold 90 % of the energy"),
    "energy_rank_99": Quantity("singular values that hold 99 % of the energy", tail=True),
    "tail_index": Quantity("tail index (Hill)", error="tail_index_error"),
    "outliers": Quantity("outliers above the Gaussian edge"),
    "numerical_rank": Quantity("numerical rank"),
    "max_rank": Quantity("largest possible rank"),
    "condition_number": Quantity(r"$\kappa = \sigma_1/\sigma_q$", log=True),
    "condition_number_raw": Quantity(r"raw $\sigma_1/\sigma_q$", log=True),
    "condition_number_r": Quantity(r"$\kappa_r = \sigma_1/\sigma_r$", log=True),
    "condition_number_90": Quantity(
        r"$\kappa_{90} = \sigma_1/\sigma_{\lceil 0.9q\rceil}$", log=True
    ),
    "noise_floor": Quantity("noise floor", log=True),
    "noise_share": Quantity("share that may be rounding noise"),
    "signal_to_noise": Quantity(r"$\sigma_1$ / noise floor", log=True),
    "relative_size": Quantity(r"$\|\Delta W\|_F/\|W\|_F$", log=True),
    "update_cosine": Quantity("cosine with the previous update", error="update_cosine_error"),
    "update_cosine_bias": Quantity("cosine that rounding gives independent updates"),
    "entry_gini": Quantity("Gini coefficient of the entries"),
    "entry_hoyer": Quantity("Hoyer sparsity of the entries"),
    "spectral_norm": Quantity(r"spectral norm $\sigma_1$", error="sigma_error"),
    "frobenius_norm": Quantity("Frobenius norm"),
    "nuclear_norm": Quantity("nuclear norm"),
    "per_error": Quantity("relative error bound of PER", log=True),
    "sigma_error": Quantity(r"error bound of $\sigma$", log=True),
}


_OF_FEATURES = {
    "rankme": Quantity("RankMe = effective rank of features", tail=True),
    "per": Quantity("PER of features = RankMe / min(n, d)", tail=True),
    "alpha_req": Quantity(r"$\alpha$-ReQ = decay of the eigenvalues"),
    "stable_rank": Quantity("stable rank of features"),
    "participation_ratio": Quantity("participation ratio of features"),
}
FEATURE_QUANTITIES = {
    **_OF_FEATURES,
    **{f"{name}_centred": replace(of, label=f"{of.label}, centred")
       for name, of in _OF_FEATURES.items()},
    "mean_cosine": Quantity("mean cosine between tokens"),
    "mean_norm": Quantity("mean norm of features", log=True),
}  # fmt: skip
"""Numbers of the features that layers give, which share some names with those of matrices."""
SIMILARITY_QUANTITIES = {
    "cka": Quantity("CKA, unbiased"),
    "cka_biased": Quantity("CKA, biased"),
    "svcca": Quantity("SVCCA"),
    "pwcca": Quantity("PWCCA"),
}


SCORE_QUANTITIES = {
    "perplexity": Quantity("perplexity per token", log=True),
    "byte_perplexity": Quantity("perplexity per byte", log=True),
    "word_perplexity": Quantity("perplexity per word", log=True),
    "mean_document_perplexity": Quantity("mean per-document perplexity", log=True),
    "macro_perplexity": Quantity("mean per-source perplexity", log=True),
    "loss": Quantity("loss (nats per token)"),
    "bits_per_byte": Quantity("bits per byte"),
    "accuracy": Quantity("accuracy"),
    "ties": Quantity("ties"),
}
"""Measures of performance."""


def quantity(column: str, of: Mapping[str, Quantity] = QUANTITIES) -> Quantity:
    """How to draw a column; one that is not listed, such as one of your own, under its name."""
    return of.get(column) or Quantity(column.replace("$", r"\$"))


def usual_error(rows: pd.DataFrame, column: str) -> float:
    """Median of the absolute errors to which a column's values are known; 0 where none is stored.

    Bounds that are not finite do not count.
    """
    drawn = quantity(column)
    if drawn.error not in rows:
        return 0.0
    errors = rows[drawn.error].to_numpy(np.float64, na_value=np.nan)
    if drawn.is_relative:
        errors = errors * np.abs(rows[column].to_numpy(np.float64, na_value=np.nan))
    finite = errors[np.isfinite(errors)]
    return float(np.median(finite)) if finite.size else 0.0
