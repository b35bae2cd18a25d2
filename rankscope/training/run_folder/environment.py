"""``environment.json``: with what a run was trained."""

from __future__ import annotations

import importlib.metadata
import platform

import numpy as np
import safetensors
import torch

from rankscope.training.config import Config
from rankscope.training.config_file import config_digest
from rankscope.training.data.corpus import Corpus

# With one of these changed, the same steps give results that agree, but not to the last bit.
DECIDES_THE_LAST_BIT = ("torch", "threads", "processes", "cpu_capability", "device", "machine")


def environment(config: Config, corpus: Corpus, *, processes: int) -> dict[str, object]:
    """Versions, threads and hashes, each a string or a number."""
    return {
        "rankscope": importlib.metadata.version("rankscope"),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "safetensors": safetensors.__version__,
        "system": platform.system(),
        "machine": platform.machine(),
        "device": torch.cuda.get_device_name() if config.device == "cuda" else "cpu",
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "processes": processes,
        "config_blake2b": config_digest(config),
        "data_blake2b": corpus.digest(),
        "training_tokens": len(corpus.training),
        "validation_tokens": len(corpus.validation),
        "vocab_size": corpus.vocab_size,
    }
