"""Which checkpoints of a run hold the same weights under different steps.

Released models have such branches. A wrong upload makes every update between them zero, and the
next update the sum of all that it replaced.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Iterator

from rankscope.addresses import is_stand_in
from rankscope.checkpoints.account import roots
from rankscope.checkpoints.checksums import sampling
from rankscope.checkpoints.contents import Contents
from rankscope.checkpoints.fingerprint import fingerprint
from rankscope.checkpoints.run import Checkpoint, Run
from rankscope.checkpoints.tensors import FLOATS, Tensor
from rankscope.errors import RankscopeError

SAMPLE = 256  # elements of each tensor that are compared


def identical_steps(run: Run) -> list[tuple[int, ...]]:
    """Groups of steps of a run whose weights are the same; empty if all differ.

    The same files are the same weights, as when two snapshots of the hub's cache share a blob.
    Other files are compared by their headers and some elements of every matrix and adapter, since
    digests of whole files differ even if only the step beside the weights does. A checkpoint that
    cannot be read, or holds no weights that are understood, is not the same as any other.
    """
    if len(run) < 2:
        return []
    by_files: dict[tuple[str, ...], str] = {}
    steps: dict[str, list[int]] = {}
    for checkpoint in run:
        try:
            contents = checkpoint.read()
            files = _files(contents)
            if not files:
                continue
            if files not in by_files:
                by_files[files] = _digest(contents)
        except RankscopeError:
            continue
        steps.setdefault(by_files[files], []).append(checkpoint.step)
    return [tuple(same) for same in steps.values() if len(same) > 1]


def hold_the_same(one: Checkpoint, other: Checkpoint) -> bool:
    """Whether two checkpoints hold the same weights, as `identical_steps` compares them.

    An error: weights that differ only in elements that are not compared, such as an embedding
    with a few edited rows, count as the same.
    """
    try:
        first, second = one.read(), other.read()
        same = _files(first) == _files(second) or _digest(first) == _digest(second)
        return same and bool(_files(first))
    except RankscopeError:
        return False


def _files(contents: Contents) -> tuple[str, ...]:
    paths = {path for _, tensor in _iter_tensors(contents) for path in tensor.paths}
    return tuple(sorted(map(os.path.realpath, paths)))


def _digest(contents: Contents) -> str:
    """Digest of names and shapes, and of elements from the middle of every tensor.

    Of what lies elsewhere no elements are fetched: its files count as they are versioned there.
    """
    digest = hashlib.blake2b(digest_size=16)
    for label, tensor in _iter_tensors(contents):
        start = max(math.prod(tensor.shape) - SAMPLE, 0) // 2
        stop = min(start + SAMPLE, math.prod(tensor.shape))
        digest.update(repr((label, tensor.dtype, tensor.shape)).encode())
        if any(map(is_stand_in, tensor.paths)):
            digest.update(repr([fingerprint(path) for path in tensor.paths]).encode())
            continue
        with sampling():
            digest.update(tensor.elements(start, stop).tobytes())
    return digest.hexdigest()


def _iter_tensors(contents: Contents) -> Iterator[tuple[str, Tensor]]:
    """Every stored tensor of the weights and adapters once, with a label that includes scales."""
    seen = set()
    for name, parameter in sorted(contents.parameters.items()):
        adapter = parameter.adapter
        scale = None if adapter is None else adapter.scale
        made_of = (*(adapter.tensors if adapter else ()), *filter(None, (parameter.tensor,)))
        # Only stored tensors can be read from the middle without all that comes before.
        for tensor in (stored for one in made_of for stored in roots(one)):
            if tensor.dtype in FLOATS and (key := (tensor.paths, tensor.name)) not in seen:
                seen.add(key)
                yield repr((name, tensor.name, scale)), tensor
