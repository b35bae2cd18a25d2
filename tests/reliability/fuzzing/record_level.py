"""Mutations of the record of a call, mostly with a digest that fits."""

from __future__ import annotations

import json
from random import Random

from rankscope.results.record import DIGEST, _digest_of_record
from tests.reliability.fuzzing import json_level


def mutated(rng: Random, data: bytes) -> bytes:
    """A record that says something else: one with a wrong digest is refused, whatever it says."""
    text = json_level.mutated(rng, data)
    if rng.random() < 0.2:
        return text
    try:
        record = json.loads(text)
        record[DIGEST] = _digest_of_record(record)
        return json.dumps(record).encode()
    except (ValueError, TypeError, AttributeError, RecursionError):
        return text
