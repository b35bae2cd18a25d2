"""The run behind ``version-1``: the results of an analysis as version 0.1.0 wrote them.

Made with commit 06bdda6, the last of schema version 1 with a store of version 1:

    python -m tests.results.older_run RUN/relora          # here
    rankscope analyze RUN/relora --out OUT --jobs 1 \
        --components weight,update,cumulative_update,adapter,ov,merge,merged_total   # there

and, of OUT, the files that `Results` reads. Paths and times in ``analysis.json`` were shortened.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from tests.conftest import write_adapter, write_model

COMPONENTS = ("weight", "update", "cumulative_update", "adapter", "ov", "merge", "merged_total")
WIDTH, RANK, SCALE = 6, 2, 2.0
MODULES = ("model.layers.0.self_attn.v_proj", "model.layers.0.self_attn.o_proj")
CONFIG = {"model_type": "llama", "hidden_size": WIDTH, "num_attention_heads": 2}


def write_older_run(path: Path) -> Path:
    """Write a ReLoRA run of two small weights: steps 10, 20 and 30, a merge after step 20."""
    rng = np.random.default_rng(2307)
    weights = {f"{m}.weight": rng.normal(size=(WIDTH, WIDTH)).astype(np.float32) for m in MODULES}
    for step in (10, 20, 30):
        factors = {
            m: tuple(
                rng.normal(size=size).astype(np.float32) / 8
                for size in ((WIDTH, RANK), (RANK, WIDTH))
            )
            for m in MODULES
        }
        folder = path / "checkpoints" / f"step-{step:08d}"
        write_model(folder, weights, config=CONFIG)
        write_adapter(folder / "adapter", factors, scale=SCALE)  # type: ignore[arg-type]
        (folder / "state.json").write_text(json.dumps({"step": step}))
        if step != 20:
            continue
        merge = {}
        for module, (left, right) in factors.items():
            merge |= {f"{module}.lora_A": right, f"{module}.lora_B": left}
            merge[f"{module}.scale"] = np.array([SCALE], np.float32)
            added = SCALE * left.astype(np.float64) @ right
            name = f"{module}.weight"
            weights[name] = (weights[name] + added).astype(np.float32)
        (path / "merges").mkdir()
        save_file(merge, path / "merges" / f"step-{step:08d}.safetensors")
    return path


if __name__ == "__main__":
    write_older_run(Path(sys.argv[1]))
