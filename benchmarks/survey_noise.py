"""Noise floors beside the rounding errors that they bound: docs/numerics.md, section 3.

python -m benchmarks.survey_noise            # sizes up to 512; about two minutes
"""

from __future__ import annotations

import numpy as np

from rankscope.spectra.rounding import MARGIN, rounding_of
from tests.spectra.stored_updates import (
    DISTRIBUTIONS,
    FORMATS,
    SHAPES,
    floor_ratio,
    iter_updates,
    update,
)


def report_floors() -> None:
    """Smallest and largest floor/‖E‖₂ by format and distribution, over shapes and three seeds."""
    print("| distribution | " + " | ".join(FORMATS) + " |\n|---" + "|---" * len(FORMATS) + "|")
    for name, make in DISTRIBUTIONS.items():
        cells = []
        for dtype in FORMATS:
            found = [
                floor_ratio(make(np.random.default_rng(seed), shape), dtype)
                for shape in SHAPES
                for seed in range(3)
            ]
            cells.append(f"{min(found):.2f} to {max(found):.2f}")
        print(f"| {name} | " + " | ".join(cells) + " |", flush=True)


def report_updates() -> None:
    """How often the rank of an update comes out right, too small, too large."""
    print("\n| stored | ‖D‖/‖W‖ | updates | rank right | smaller | larger | least floor/‖E‖₂ |")
    print("|---" * 7 + "|")
    shapes = [(64, 64), (32, 128), (96, 96)]
    for dtype in FORMATS:
        by_size: dict[float, list[tuple[int, float]]] = {}
        for true, size, one in iter_updates(is_single=False, formats=(dtype,), shapes=shapes):
            by_size.setdefault(size, []).append((one.rank - true, one.coverage))
        for size, found in by_size.items():
            excess = np.array([x for x, _ in found])
            counts = [(excess == 0).sum(), (excess < 0).sum(), (excess > 0).sum()]
            least = min(x for _, x in found)
            cells = [dtype, f"{size:g}", len(found), *counts, f"{least:.2f}"]
            print("| " + " | ".join(map(str, cells)) + " |", flush=True)


def report_single_precision_merges() -> None:
    """What a float32 product adds to the error, by inner dimension and size of the update."""
    print("\n| r | ‖fl(BA) − BA‖₂ / edge | floor/‖E‖₂, rank found: ‖D‖/‖W‖ = 10 | 1 | 0.1 |")
    print("|---" * 5 + "|")
    for rank in (4, 16, 64, 128):
        rng = np.random.default_rng(rank)
        left, right = (rng.normal(size=s).astype(np.float32) for s in ((384, rank), (rank, 384)))
        exact = left.astype(np.float64) @ right
        edge = rounding_of(exact.astype(np.float32), "float32").floor / MARGIN
        product = float(np.linalg.norm(left @ right - exact, 2)) / edge
        cells = [f"{product:.2f} = {product / np.sqrt(rank):.2f}·√r"]
        for size in (10.0, 1.0, 0.1):
            weight = rng.normal(size=(384, 384))
            one = update(rng, weight, "float32", rank=rank, size=size, is_single=True)
            cells.append(f"{one.coverage:.2f}, {one.rank}")
        print(f"| {rank} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    report_floors()
    report_updates()
    report_single_precision_merges()
