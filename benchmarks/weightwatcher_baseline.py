"""WeightWatcher over the checkpoints of a run, in a separate environment.

It is given a folder of safetensors and runs with its defaults, which are its fast settings:
``svd_method`` is ``fast``, and there are no plots, no randomisation, no Marchenko–Pastur fit.
"""

from __future__ import annotations

import argparse
import json
import logging
import time
from pathlib import Path

import weightwatcher  # type: ignore[import-not-found]


def main() -> None:
    """Analyse the projection matrices of every checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    run = parser.parse_args().run
    logging.getLogger("weightwatcher").setLevel(logging.ERROR)
    seconds, matrices = 0.0, 0
    for folder in sorted(run.glob("step-*")):
        watcher = weightwatcher.WeightWatcher(model=str(folder))
        layers = watcher.describe()
        chosen = layers[layers["longname"].str.contains("_proj")]["layer_id"].tolist()
        start = time.perf_counter()
        details = watcher.analyze(layers=chosen)
        seconds += time.perf_counter() - start
        matrices += len(details)
    version = weightwatcher.__version__
    print(json.dumps({"matrices": matrices, "own_seconds": seconds, "version": version}))


if __name__ == "__main__":
    main()
