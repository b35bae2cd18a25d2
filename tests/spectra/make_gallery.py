"""Write the gallery with its reference values, or report how far the package is from them.

    python -m tests.spectra.make_gallery                            # writes gallery.npz
    python -m tests.spectra.make_gallery --report                   # error against bound
    python -m tests.spectra.make_gallery --report --rows 256 --columns 64

The file holds the float64 entries themselves, for neither the random numbers nor the orthogonal
factors are the same on every machine, and the singular values to 40 digits.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import mpmath
import numpy as np
from numpy.typing import NDArray

from rankscope.results.measure import measure
from rankscope.spectra.matrices import LowRank
from rankscope.spectra.singular_values import spectrum
from tests.spectra.gallery import Stored, dense_gallery, product_gallery
from tests.spectra.reference import Exact, distance, effective_rank, is_inside

PATH = Path(__file__).with_name("gallery.npz")


class Entry(NamedTuple):
    """A matrix, or a product, and its true singular values: those of the product are min(m, n)."""

    name: str
    matrix: Stored | LowRank
    s: list[str]

    @property
    def true_condition(self) -> mpmath.mpf:
        """s₁/s_q; infinite where s_q is exactly 0."""
        first, last = mpmath.mpf(self.s[0]), mpmath.mpf(self.s[-1])
        return first / last if last else mpmath.inf


def iter_made(m: int, n: int) -> Iterator[Entry]:
    """Every matrix of the gallery in one shape, with its true singular values."""
    for name, stored in dense_gallery(m, n).items():
        yield Entry(name, stored, Exact.of(stored.values).singular_values())
    for name, product in product_gallery(m, n).items():
        exact = Exact.of(product.left) @ Exact.of(product.right)
        yield Entry(name, product, exact.singular_values())


def write_gallery(path: Path, entries: Iterator[Entry]) -> None:
    """Write entries to an npz file, arrays named ``entry/what``."""
    arrays: dict[str, NDArray[Any]] = {}
    for name, matrix, s in entries:
        if isinstance(matrix, LowRank):
            arrays |= {f"{name}/left": matrix.left, f"{name}/right": matrix.right}
        else:
            arrays |= {f"{name}/values": matrix.values, f"{name}/dtype": np.array(matrix.dtype)}
        arrays[f"{name}/s"] = np.array(s, dtype="S")
    np.savez_compressed(path, allow_pickle=False, **arrays)


def read_gallery(path: Path = PATH) -> list[Entry]:
    """Entries as they were written."""
    with np.load(path) as arrays:
        names = dict.fromkeys(key.rpartition("/")[0] for key in arrays)
        return [_entry(name, arrays) for name in names]


def _entry(name: str, arrays: Any) -> Entry:
    s = [x.decode() for x in arrays[f"{name}/s"]]
    if f"{name}/left" in arrays:
        return Entry(name, LowRank(arrays[f"{name}/left"], arrays[f"{name}/right"]), s)
    return Entry(name, Stored(arrays[f"{name}/values"], str(arrays[f"{name}/dtype"])), s)


def misses(entry: Entry) -> int:
    """How many intervals do not contain the truth, of the matrix and of its transpose."""
    matrix = entry.matrix
    if isinstance(matrix, LowRank):
        both = [spectrum(matrix), spectrum(LowRank(matrix.right.T, matrix.left.T))]
    else:
        both = [spectrum(x.dense()) for x in (matrix, Stored(matrix.values.T, matrix.dtype))]
    return sum(
        not is_inside(low, true, high)
        for found in both
        for low, true, high in zip(found.lower, entry.s[: found.max_rank], found.upper, strict=True)
    )


def report_line(entry: Entry) -> str:
    """One row of a Markdown table: error and bound of s and of PER, condition number."""
    matrix = entry.matrix
    found = spectrum(matrix if isinstance(matrix, LowRank) else matrix.dense())
    row = measure(found)
    s = entry.s[: found.max_rank]
    error = max(distance(x, y) for x, y in zip(found.values, s, strict=True))
    largest, bound = mpmath.mpf(entry.s[0]), mpmath.mpf(found.error)
    cells = [entry.name, found.route]
    if not largest:
        return "| " + " | ".join([*cells, f"{float(error):.0e}", f"{float(bound):.0e}"]) + " |"
    true = effective_rank(entry.s)
    per = abs(mpmath.mpf(row["effective_rank"]) / true - 1)
    cells += [f"{float(x):.0e}" for x in (error / largest, bound / largest, per)]
    cells += [f"{row['per_error']:.0e}", f"{float(entry.true_condition):.2g}"]
    sign = {"lower-bound": "≥ ", "inf": "", "ok": ""}[str(row["condition_number_status"])]
    cells += [f"{sign}{row['condition_number']:.2g}", f"{row['numerical_rank']}"]
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    """Write, or report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--report", action="store_true")
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--columns", type=int, default=16)
    options = parser.parse_args()
    made = iter_made(options.rows, options.columns)
    if not options.report:
        write_gallery(PATH, made)
        return
    print("| matrix | route | error/s₁ | bound/s₁ | PER error | per_error | κ true | κ | rank |")
    print("|---" * 9 + "|")
    missed = 0
    for entry in made:
        print(report_line(entry), flush=True)
        missed += misses(entry)
    print(f"\nintervals that miss the truth, transposes included: {missed}")


if __name__ == "__main__":
    main()
