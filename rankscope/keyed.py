"""Random numbers that depend on what they are for, and on nothing that happened before."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def keyed_generator(seed: int, *key: str | int) -> torch.Generator:
    """Return a generator for one purpose, such as ``(seed, "batch", step)``, on the CPU.

    The draws are the same on every device and in every order of calls, so there is nothing to
    restore when a run is resumed.
    """
    digest = hashlib.blake2b(repr((seed, *key)).encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "little") >> 1)


@contextmanager
def keyed_global_generators(device: torch.device, seed: int, *key: str | int) -> Iterator[None]:
    """Seed torch's global generators by a key, and restore them at the end.

    For what can draw from no other generator, such as dropout.
    """
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(keyed_generator(seed, *key).initial_seed())
        yield
