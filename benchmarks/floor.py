"""The floor: Gram products and eigenvalues of all matrices in a run's layers, and nothing else.

Single-threaded processes share the matrices, as the workers of ``rankscope analyze`` do. Large
matrices have their eigenvalues in two stages, which is the fastest way that is known here. There
are no checks, noise floors, metrics, stores or tables, and no second route for small singular
values: every float64 analysis takes at least this long.
`benchmarks.programs` gives every process one BLAS thread; when run by hand, set OMP_NUM_THREADS=1.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rankscope.spectra.symmetric import eigenvalues

Stored = tuple[Path, str, tuple[int, int], int]  # file, dtype, shape, offset of the first byte


def squares(stored: Stored) -> NDArray[np.float64]:
    """Squared singular values of one matrix, ascending."""
    matrix = read(stored)
    wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    return eigenvalues(wide @ wide.T)


def read(stored: Stored) -> NDArray[np.float64]:
    """Read one matrix as float64."""
    path, dtype, shape, offset = stored
    bits = np.fromfile(
        path, "<f4" if dtype == "F32" else "<u2", count=shape[0] * shape[1], offset=offset
    )
    if dtype == "BF16":
        bits = np.left_shift(bits, 16, dtype=np.uint32).view(np.float32)  # in one step
    return bits.reshape(shape).astype(np.float64)


def iter_matrices(run: Path) -> Iterator[Stored]:
    """Matrices in the layers of every checkpoint of a run."""
    for path in sorted(run.glob("step-*/model.safetensors")):
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header: dict[str, Any] = json.loads(file.read(length))
        for name, entry in header.items():
            if name.startswith("model.layers.") and len(entry["shape"]) == 2:
                rows, columns = entry["shape"]
                yield path, entry["dtype"], (rows, columns), 8 + length + entry["data_offsets"][0]


def main() -> None:
    """Decompose a run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args()
    with get_context("fork").Pool(options.jobs) as pool:  # the cheapest start
        spectra = pool.map(squares, iter_matrices(options.run), chunksize=4)
    print(f"{len(spectra)} matrices, {sum(map(len, spectra))} singular values")


if __name__ == "__main__":
    main()
