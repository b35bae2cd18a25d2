"""Every column of a row from the exact matrix, and the package's distance from it."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import mpmath
import numpy as np
import pandas as pd

from tests.components.exact import effective_rank, frobenius, misses, singular_values
from tests.oracle.truth import Key, Truth

CHANGES = ("update", "cumulative_update", "ov_update", "qk_update")
WHOLE = ("weight", "base", "gradient")


@dataclass
class Report:
    """False intervals by row, and the largest relative error of each column."""

    false: list[tuple[Key, str, float]] = field(default_factory=list)
    wrong: list[tuple[Key, str, object, object]] = field(default_factory=list)
    largest: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    intervals: int = 0
    rows: int = 0

    def close(self, column: str, found: Any, true: Any) -> None:
        """Note the relative error of a number."""
        error = abs(mpmath.mpf(float(found)) / true - 1) if true else abs(float(found))
        self.largest[column] = max(self.largest[column], float(error))

    def equal(self, key: Key, column: str, found: Any, true: Any) -> None:
        """Note a value that differs from the truth."""
        empty = found is None or found is pd.NA or (isinstance(found, float) and math.isnan(found))
        if (true is None) != empty or (not empty and found != true):
            self.wrong.append((key, column, found, true))

    def inside(self, key: Key, column: str, found: float, true: Any, error: float) -> None:
        """Note a number that is farther from the truth than its bound."""
        self.intervals += 1
        self.close(column, found, true)
        away = abs(mpmath.mpf(found) - true)
        if away > error:
            self.false.append((key, column, float(away / error) if error else math.inf))


def compare(
    report: Report, key: Key, truth: Truth, row: Mapping[str, Any], spectrum: pd.DataFrame
) -> None:
    """Compare one row and its stored spectrum with the truth."""
    report.rows += 1
    true = singular_values(truth.matrix)
    s, lower, upper = (spectrum[name].to_numpy() for name in ("singular_value", "lower", "upper"))
    report.intervals += len(s)
    report.false += [(key, "singular_value", miss) for miss in misses(lower, upper, true)]
    # Past the rank that the construction allows they are zero; here they are rounding.
    true = [*true[: truth.max_rank], *[mpmath.mpf(0)] * (len(true) - truth.max_rank)]
    since, restarts, kind = truth.window
    for column, value in (
        ("since", since), ("restarts", restarts), ("window", kind), ("rows", truth.matrix.shape[0]),
        ("cols", truth.matrix.shape[1]), ("max_rank", truth.max_rank),
        ("significant_bits", truth.bits), ("status", "ok" if true[0] else "zero"),
    ):  # fmt: skip
        report.equal(key, column, row[column], value)
    _norms(report, key, true, row)
    if truth.before is not None:
        ratio = frobenius(truth.matrix) / frobenius(truth.before)
        report.inside(key, "relative_size", row["relative_size"], ratio, row["relative_size_error"])
    else:
        report.equal(key, "relative_size", row["relative_size"], None)
    _floor(report, key, truth, row)
    _cosine(report, key, truth, row)
    _entries(report, key, truth, row)
    if true[0]:
        rank = _rank(report, key, true, row, lower)
        _ranks(report, key, true, rank, truth, row)
        _conditions(report, key, true, rank, row)
    else:
        for column in ("per", "per_resolved", "numerical_rank", "condition_number", "noise_share"):
            report.equal(key, column, row[column], None)


def _norms(report: Report, key: Key, true: list[Any], row: Mapping[str, Any]) -> None:
    values = {
        "spectral_norm": true[0],
        "frobenius_norm": mpmath.sqrt(mpmath.fsum(x * x for x in true)),
        "nuclear_norm": mpmath.fsum(true),
    }
    for (column, value), count in zip(values.items(), (1, len(true), len(true)), strict=True):
        report.inside(
            key, column, row[column], value, count * row["sigma_error"] * (1 + 1e-9) + 1e-300
        )


def _floor(report: Report, key: Key, truth: Truth, row: Mapping[str, Any]) -> None:
    if row["noise_source"] == "storage":
        report.close("noise_floor", row["noise_floor"], truth.floor)
    elif row["noise_floor"] < truth.floor * (1 - 1e-6):
        report.wrong.append((key, "noise_floor", row["noise_floor"], truth.floor))


def _cosine(report: Report, key: Key, truth: Truth, row: Mapping[str, Any]) -> None:
    one, other = truth.earlier_change, truth.matrix
    if one is None or not (one != 0).any() or not (other != 0).any():
        report.equal(key, "update_cosine", row["update_cosine"], None)
        return
    norms = frobenius(one) * frobenius(other)
    dot = (one * other).sum()
    true = mpmath.mpf(dot.numerator) / dot.denominator / norms
    report.inside(key, "update_cosine", row["update_cosine"], true, row["update_cosine_error"])


def _entries(report: Report, key: Key, truth: Truth, row: Mapping[str, Any]) -> None:
    """Gini by the mean difference of all pairs, and Hoyer; of weights, and what else is formed."""
    if math.isnan(row["entry_gini"]):
        if key.component in WHOLE:
            report.wrong.append((key, "entry_gini", None, "a number"))
        return
    x = [abs(mpmath.mpf(e.numerator) / e.denominator) for e in truth.matrix.ravel()]
    ordered, n = sorted(x), len(x)
    total, squares = mpmath.fsum(x), mpmath.fsum(e * e for e in x)
    # Σ|a − b| over pairs: each value is the larger of a pair as often as there are smaller ones.
    differences = mpmath.fsum(e * (2 * place - n + 1) for place, e in enumerate(ordered))
    report.close("entry_gini", row["entry_gini"], differences / (n * total))
    root = mpmath.sqrt(n)
    hoyer = (root - total / mpmath.sqrt(squares)) / (root - 1)
    report.close("entry_hoyer", row["entry_hoyer"], hoyer)


def _rank(report: Report, key: Key, true: list[Any], row: Mapping[str, Any], lower: Any) -> int:
    """The numerical rank, which never counts a value below the floor nor misses one far above."""
    rank, floor = int(row["numerical_rank"]), row["noise_floor"]
    most = sum(x > floor for x in true)
    least = sum(x > floor + 2 * row["sigma_error"] for x in true)
    if not least <= rank <= most:
        report.wrong.append((key, "numerical_rank", rank, (least, most)))
    return rank


def _ranks(
    report: Report, key: Key, true: list[Any], rank: int, truth: Truth, row: Mapping[str, Any]
) -> None:
    q = min(truth.matrix.shape)
    if not rank and row["noise_source"] == "arithmetic":
        for column in ("effective_rank", "per", "stable_rank"):
            report.equal(key, column, row[column], None)
        return
    erank = effective_rank(true)
    report.inside(key, "effective_rank", row["effective_rank"], erank, row["per_error"] * erank)
    squares = [x * x for x in true]
    total = mpmath.fsum(squares)
    values: dict[str, Any] = {
        "per": erank / q,
        "rank_utilisation": erank / truth.max_rank,
        "stable_rank": total / squares[0],
        "participation_ratio": total**2 / mpmath.fsum(x * x for x in squares),
        "noise_share": min(
            (truth.max_rank - rank) * mpmath.mpf(row["noise_floor"]) / mpmath.fsum(true), 1
        ),
        "per_gaussian": gaussian_per(truth.matrix.shape),
    }
    if rank:
        values["per_resolved"] = effective_rank(true[:rank]) / q
    else:
        report.equal(key, "per_resolved", row["per_resolved"], None)
    for column, value in values.items():
        report.close(column, row[column], value)


def _conditions(
    report: Report, key: Key, true: list[Any], rank: int, row: Mapping[str, Any]
) -> None:
    kappa: Callable[[int], Any] = lambda place: true[0] / true[place - 1]  # noqa: E731
    if row["condition_number_r"] is not None and not math.isnan(row["condition_number_r"]):
        report.close("condition_number_r", row["condition_number_r"], kappa(rank))
    if key.component not in WHOLE:
        for column in ("condition_number", "condition_number_raw", "condition_number_90"):
            report.equal(key, column, row[column], None)
        report.close("signal_to_noise", row["signal_to_noise"], true[0] / row["noise_floor"])
        return
    report.equal(key, "signal_to_noise", row["signal_to_noise"], None)
    q, ninety = len(true), math.ceil(0.9 * len(true))
    if row["condition_number_status"] == "ok":
        report.close("condition_number", row["condition_number"], kappa(q))
        report.close("condition_number_raw", row["condition_number_raw"], kappa(q))
    elif true[-1] and row["condition_number"] > kappa(q):
        report.false.append((key, "condition_number", float(row["condition_number"] / kappa(q))))
    if not math.isnan(row["condition_number_90"]):
        report.close("condition_number_90", row["condition_number_90"], kappa(ninety))


_GAUSSIAN: dict[tuple[int, ...], Any] = {}


def gaussian_per(shape: tuple[int, ...]) -> Any:
    """E[s]·exp(−E[s ln s]/E[s]) over the Marchenko–Pastur density, by adaptive quadrature."""
    if shape not in _GAUSSIAN:
        y = mpmath.mpf(min(shape)) / max(shape)
        low, high = ((1 + sign * mpmath.sqrt(y)) ** 2 for sign in (-1, 1))

        def mean(of: Callable[[Any], Any]) -> Any:
            def density(x: Any) -> Any:
                return of(x) * mpmath.sqrt((high - x) * (x - low)) / (2 * mpmath.pi * y * x)

            return mpmath.quad(density, np.linspace(float(low), float(high), 5).tolist())

        first = mean(mpmath.sqrt)
        second = mean(lambda x: mpmath.sqrt(x) * mpmath.log(x) / 2)
        _GAUSSIAN[shape] = first * mpmath.exp(-second / first)
    return _GAUSSIAN[shape]
