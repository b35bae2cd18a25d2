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
    has_digest = "digest" in listing  # files of the first version have none
    about = listing["about"] if has_digest else listing
    text = json_level.mutated(rng, json.dumps(about).encode()).decode()
    if has_digest:
        text = _digested(rng, listing["version"], text, held)
    return save(held, metadata={vectors.KEY: text.encode("utf-8", "replace").decode()})


def _digested(rng: Random, version: str, about: str, held: vectors.Vectors) -> str:
    """The listing with this description, with a digest that fits it if it can be read."""
    version = rng.choice((version,) * 6 + ("1", "2", "99"))
    try:
        read = json.loads(about)
        digest = vectors._digest(version, read, held)
        return vectors._dumped({"version": version, "digest": digest, "about": read})
    except (ValueError, RecursionError):
        return f'{{"version":"{version}","digest":"x","about":{about}}}'
