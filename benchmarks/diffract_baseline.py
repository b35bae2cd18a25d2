"""diffract-core over the checkpoints of a run, in a separate environment.

It uses a session in memory, its profile for quick experiments, takes the weights as a dictionary of
arrays, and computes those of its metrics that rankscope has too.
"""

from __future__ import annotations

import argparse
import json
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
from diffract import Session  # type: ignore[import-not-found]
from numpy.typing import NDArray

FIELDS = (
    *("effective_rank", "stable_rank", "hard_rank", "frob_norm", "nuclear_norm"),
    *("max_weights_sval", "min_weights_sval"),
)


def projections(path: Path) -> dict[str, NDArray[np.float32]]:
    """Projection matrices of one safetensors file, as float32; needs no package to read them."""
    matrices = {}
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
    for name, entry in header.items():
        if not name.endswith("_proj.weight"):
            continue
        rows, columns = entry["shape"]
        offset = 8 + length + entry["data_offsets"][0]
        bits = np.fromfile(
            path,
            "<f4" if entry["dtype"] == "F32" else "<u2",
            count=rows * columns,
            offset=offset,
        )
        wide = bits if entry["dtype"] == "F32" else (bits.astype(np.uint32) << 16).view(np.float32)
        matrices[name] = wide.reshape(rows, columns)
    return matrices


def main() -> None:
    """Analyse the projection matrices of every checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    run = parser.parse_args().run
    seconds, matrices = 0.0, 0
    for folder in sorted(run.glob("step-*")):
        weights = projections(folder / "model.safetensors")
        start = time.perf_counter()
        with Session(profile="ram") as session:
            session.models.add(weights, model_id=folder.name)
            session.compute.apply(*FIELDS)
            metrics = session.results.export_metrics(*FIELDS, export_format="list")
        seconds += time.perf_counter() - start
        matrices += len(metrics)
    own = version("diffract-core")
    print(json.dumps({"matrices": matrices, "own_seconds": seconds, "version": own}))


if __name__ == "__main__":
    main()
