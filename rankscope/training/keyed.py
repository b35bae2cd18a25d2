"""Random numbers that depend on what they are for, and on nothing that happened before."""

from __future__ import annotations

import hashlib

import torch


def keyed_generator(seed: int, *key: str | int) -> torch.Generator:
    """Return a generator of its own for one purpose, as ``(seed, "batch", step)``.

    The draws are the same on every device and in every order of calls, so nothing has to be
    restored when a run is resumed. The generator lives on the CPU.
    """
    digest = hashlib.blake2b(repr((seed, *key)).encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "little") >> 1)
