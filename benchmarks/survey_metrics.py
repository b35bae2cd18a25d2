"""Show where a metric says less than it seems to: the tables of docs/numerics.md, section 4.

python -m benchmarks.survey_metrics          # a few seconds
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from rankscope.results.measure import Number, measure
from rankscope.spectra.matrices import Dense, LowRank
from rankscope.spectra.singular_values import spectrum
from tests.spectra.gallery import rounded
from tests.spectra.stored_updates import update

Row = dict[str, Number]


def row_of(matrix: NDArray[np.float64] | Dense | LowRank) -> Row:
    """Metrics of one matrix."""
    return measure(spectrum(matrix))


def line(*cells: object) -> None:
    """Print one row of a Markdown table."""
    texts = (f"{x:.3g}" if isinstance(x, float) else "–" if x is None else str(x) for x in cells)
    print("| " + " | ".join(texts) + " |")


def head(*names: str) -> None:
    """Print the head of a Markdown table."""
    print()
    line(*names)
    print("|---" * len(names) + "|")


def quantiles(values: Iterable[Number]) -> list[float]:
    """Smallest, 5 %, median, 95 %, largest."""
    return [float(x) for x in np.quantile([float(x or 0) for x in values], [0, 0.05, 0.5, 0.95, 1])]


def report_luck(draws: int = 400) -> None:
    """Condition numbers and PER of Gaussian matrices."""
    head("shape", "metric", "least", "5 %", "median", "95 %", "largest")
    for shape in ((96, 96), (96, 384)):
        rng = np.random.default_rng(0)
        rows = [row_of(rng.normal(size=shape)) for _ in range(draws)]
        for name in ("condition_number", "condition_number_90", "per"):
            line(f"{shape[0]} × {shape[1]}", f"`{name}`", *quantiles(row[name] for row in rows))


def report_tail() -> None:
    """A rank-16 matrix with Gaussian noise of growing size."""
    names = ("per", "effective_rank", "stable_rank", "participation_ratio")
    head("noise", *(f"`{name}`" for name in names))
    rng = np.random.default_rng(1)
    product = rng.normal(size=(96, 16)) @ rng.normal(size=(16, 96))
    noise = rng.normal(size=(96, 96))
    noise *= np.linalg.norm(product) / np.linalg.norm(noise)
    for size in (0, 1e-4, 1e-3, 1e-2, 0.1, 0.3):
        row = row_of(product + size * noise)
        line(f"{size:g}", *(row[name] for name in names))


def report_formats() -> None:
    """One product of inner dimension 16, stored in four formats and as factors."""
    names = ("condition_number_raw", "condition_number_r", "numerical_rank", "per")
    head("stored", *(f"`{name}`" for name in names), "`condition_number`")
    rng = np.random.default_rng(2)
    left, right = 0.02 * rng.normal(size=(96, 16)), rng.normal(size=(16, 384)) / np.sqrt(384)
    stored = {f: rounded(left @ right, f).dense() for f in ("bfloat16", "float16", "float32")}
    matrices = stored | {"float64": left @ right, "factors": LowRank(left, right)}
    for name, matrix in matrices.items():
        row = row_of(matrix)
        sign = "≥ " if row["condition_number_status"] == "lower-bound" else ""
        line(name, *(row[x] for x in names), f"{sign}{row['condition_number']:.3g}")


def report_updates() -> None:
    """A rank-16 update of a Gaussian weight, recovered from two stored weights."""
    names = ("per", "per_resolved", "numerical_rank", "signal_to_noise")
    head("‖D‖/‖W‖", "stored", "true PER", *(f"`{name}`" for name in names))
    for size in (0.2, 0.02, 0.002):
        for dtype in ("bfloat16", "float32"):
            rng = np.random.default_rng(3)
            one = update(rng, rng.normal(size=(96, 384)), dtype, rank=16, size=size)
            change = spectrum(Dense(one.later - one.earlier, dtype, one.rounding))
            row = measure(change, whole=False)
            line(f"{size:g}", dtype, row_of(one.added)["per"], *(row[name] for name in names))


def report_orders() -> None:
    """An OV circuit as the model applies it, and the product the other way round."""
    head("product", "shape", "`effective_rank`", "`rank_utilisation`", "`condition_number_r`")
    rng = np.random.default_rng(4)
    output, value = rng.normal(size=(96, 8)), rng.normal(size=(8, 96))
    for name, matrix in (("W_O·W_V", LowRank(output, value)), ("W_V·W_O", value @ output)):
        row = row_of(matrix)
        shape = " × ".join(map(str, matrix.shape))
        utilisation, condition = row["rank_utilisation"], row["condition_number_r"]
        line(name, shape, row["effective_rank"], utilisation, condition)


if __name__ == "__main__":
    report_luck()
    report_tail()
    report_formats()
    report_updates()
    report_orders()
