"""Mutations of files of a store, with a digest that fits and without one that does."""

from __future__ import annotations

import json
from random import Random

import numpy as np
from safetensors.numpy import load, save

from rankscope.results import vectors
from tests.reliability.fuzzing import json_level, safetensors_level


def mutated(rng: Random, data: bytes) -> bytes:
    """A file of a store whose description is another, mostly with a digest of just that."""
    if rng.random() < 0.2:
        return safetensors_level.mutated(rng, data)
    held = load(data)
    header, _ = safetensors_level.split(data)
    listing = json.loads(json.loads(header)["__metadata__"][vectors.KEY])
    if rng.random() < 0.15:
        held = {
            name: rng.choice((one[:-1], one * np.nan, -one, one[:0])) for name, one in held.items()
        }
    about = listing["about"]
    version = rng.choice((listing["version"],) * 6 + ("1", "2", "99"))
    text = json_level.mutated(rng, json.dumps(about).encode()).decode()
    try:
        about = json.loads(text)
        digest = vectors._digest(version, about, held)
        text = vectors._dumped({"version": version, "digest": digest, "about": about})
    except (ValueError, RecursionError):
        text = f'{{"version":"{version}","digest":"x","about":{text}}}'
    return save(held, metadata={vectors.KEY: text.encode("utf-8", "replace").decode()})
