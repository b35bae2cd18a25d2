"""A probe run through a network: sums of features by block of documents, and the kept features.

All features together are never in memory. Each batch holds windows of one block of documents, and
what a module gives for it is added to that block's sums and forgotten.

Shapes: b windows in a batch, of at most t tokens; n features of d dimensions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rankscope.errors import RankscopeError
from rankscope.representations.feature_sums import BLOCKS, FeatureSums
from rankscope.representing.collected import NO_PLACE, Collected, Place
from rankscope.representing.places import Tap
from rankscope.representing.probe_windows import Probe, ProbeWindow
from rankscope.scoring.text_model import Network, ShareDone, TextModel

SUMS_BYTES = 256 << 20  # of the sums that are in memory at once, for small models; else half of one
PARTS = 3  # copies of a block's sums while a batch is added to them
T = TypeVar("T")
Listener = Callable[[int, Tensor, Tensor], None]  # block, its features, those that are kept; (n, d)


class _Enough(Exception):
    """Everything that is wanted of a batch has been computed."""


@dataclass
class _Open:
    """A place, while its features come in."""

    tap: Tap
    sums: list[FeatureSums]
    kept: list[NDArray[np.float32]] = field(default_factory=list)

    def add(self, block: int, features: Tensor, kept: Tensor) -> None:
        """Take the features of one batch."""
        self.sums[block] += sums_of(features)
        self.kept.append(kept.float().cpu().numpy())

    def closed(self) -> Collected:
        return Collected(self.tap.place, self.sums, np.concatenate(self.kept))


def widths(network: Network, taps: Sequence[Tap], device: str) -> dict[Place, int]:
    """Dimensions of the features at each place, from a run on one token.

    Raises
    ------
    RankscopeError
        With the reason ``no-place``, if a module gives something else than features of each token.
    """
    found: dict[Place, int] = {}

    def see(tap: Tap, features: Tensor) -> None:
        if features.ndim != 3 or features.shape[:2] != (1, 2) or not features.is_floating_point():
            raise RankscopeError(
                f"{tap.place} gives an array of shape "
                f"{list(features.shape)} for 2 tokens, not a vector for each",
                reason=NO_PLACE,
            )
        found[tap.place] = features.shape[2]

    _run(network, taps, torch.zeros((1, 2), dtype=torch.long, device=device), see)
    if missing := [tap.place for tap in taps if tap.place not in found]:
        raise RankscopeError(
            f"{missing[0]} is not used when the network runs",
            reason=NO_PLACE,
        )
    return found


def collect(
    model: TextModel, taps: Sequence[Tap], probe: Probe, *, progress: ShareDone | None = None
) -> Iterator[Collected]:
    """Run a probe and yield what was found, place by place.

    Where the sums of all places would take more memory than half of the model, the probe is run
    several times, each time for some of the places.

    Parameters
    ----------
    progress
        Called after every batch.

    Raises
    ------
    RankscopeError
        If a token id is outside the model's vocabulary, or a place gives no features.
    """
    network = network_of(model)
    require_vocabulary(model, probe)
    found = widths(network, taps, model.device)
    places = list(_passes(taps, found, sums_budget(network)))
    for number, some in enumerate(places):
        opened = [
            _Open(tap, [FeatureSums.empty(found[tap.place]) for _ in range(BLOCKS)]) for tap in some
        ]
        listeners = {one.tap: one.add for one in opened}
        fill(model, listeners, probe, part_of(progress, number, len(places)))
        del listeners  # so that what is yielded is not held here
        while opened:
            yield opened.pop(0).closed()


def network_of(model: TextModel) -> Network:
    """The modules of a model.

    Raises
    ------
    RankscopeError
        With the reason ``no-place``, if they are not known.
    """
    if model.network is None:
        raise RankscopeError("is not a network whose modules are known", reason=NO_PLACE)
    return model.network


def require_vocabulary(model: TextModel, probe: Probe) -> None:
    """Raise `RankscopeError` if a token id of a probe is outside the model's vocabulary."""
    largest = max(int(window.ids.max()) for window in probe.windows)
    if largest >= model.vocab_size:
        raise RankscopeError(
            f"the tokenizer gives the id {largest}, but the model's vocabulary has "
            f"{model.vocab_size} tokens: pass the `tokenizer` that it was trained with"
        )


def part_of(progress: ShareDone | None, number: int, count: int) -> ShareDone:
    """Progress of a whole of ``count`` parts, from that of part ``number``."""

    def share(done: float) -> None:
        if progress is not None:
            progress((number + done) / count)

    return share


def sums_budget(network: Network) -> int:
    """Bytes that sums may take at once."""
    weights = sum(p.numel() * p.element_size() for p in network.module.parameters())
    return max(SUMS_BYTES, weights // 2)


def _passes(taps: Sequence[Tap], found: dict[Place, int], budget: int) -> Iterator[list[Tap]]:
    """The places in groups whose sums fit into memory, one at least."""
    sizes = [8 * found[tap.place] ** 2 * (BLOCKS + PARTS) for tap in taps]
    return within_budget(taps, sizes, budget)


def within_budget(items: Iterable[T], sizes: Iterable[int], budget: int) -> Iterator[list[T]]:
    """Successive items in groups whose sizes add up to no more than a budget, one at least."""
    group: list[T] = []
    held = 0
    for item, size in zip(items, sizes, strict=True):
        if group and held + size > budget:
            yield group
            group, held = [], 0
        group.append(item)
        held += size
    yield group


def fill(
    model: TextModel, listeners: Mapping[Tap, Listener], probe: Probe, progress: ShareDone
) -> None:
    """Run every batch, and give what is at each place to its listener."""
    network, done = network_of(model), 0
    for batch in _batches(probe.windows, model.tokens_at_once):
        ids, counted, kept = (one.to(model.device) for one in _tensors(batch))
        block = batch[0].block

        def see(
            tap: Tap,
            features: Tensor,
            block: int = block,
            counted: Tensor = counted,
            kept: Tensor = kept,
        ) -> None:
            listeners[tap](block, features[counted], features[kept])

        _run(network, list(listeners), ids, see)
        done += len(batch)
        progress(done / len(probe.windows))


def _batches(windows: Sequence[ProbeWindow], tokens: int) -> Iterator[list[ProbeWindow]]:
    """Successive windows of one block, with padding at most ``tokens``, or one."""
    for _, some in groupby(windows, key=lambda window: window.block):
        batch: list[ProbeWindow] = []
        longest = 0
        for window in some:
            longest = max(longest, len(window.ids))
            if batch and (len(batch) + 1) * longest > tokens:
                yield batch
                batch, longest = [], len(window.ids)
            batch.append(window)
        yield batch


def _tensors(batch: Sequence[ProbeWindow]) -> tuple[Tensor, Tensor, Tensor]:
    """Ids (b, t), padded on the right, and which positions are counted and kept, (b, t)."""
    shape = len(batch), max(len(window.ids) for window in batch)
    ids = np.zeros(shape, np.int64)
    counted, kept = np.zeros(shape, bool), np.zeros(shape, bool)
    for row, window in enumerate(batch):
        ids[row, : len(window.ids)] = window.ids
        counted[row, window.counted] = True
        kept[row, window.kept] = True
    return torch.from_numpy(ids), torch.from_numpy(counted), torch.from_numpy(kept)


def _run(
    network: Network, taps: Sequence[Tap], ids: Tensor, see: Callable[[Tap, Tensor], None]
) -> None:
    """Run the network as far as the last of the places, and show what is at each."""
    missing = set(taps)

    def reach(tap: Tap, value: Any) -> None:
        features = value[0] if isinstance(value, (tuple, list)) else value
        if tap not in missing or not isinstance(features, Tensor):
            return
        missing.discard(tap)
        see(tap, features)
        if not missing:
            raise _Enough

    with ExitStack() as hooks, torch.inference_mode(), suppress(_Enough):
        for tap in taps:
            handle = (
                tap.module.register_forward_pre_hook(
                    lambda _, given, named, tap=tap: reach(tap, given or tuple(named.values())),
                    with_kwargs=True,
                )
                if tap.is_input
                else tap.module.register_forward_hook(
                    lambda _, given, value, tap=tap: reach(tap, value)
                )
            )
            hooks.callback(handle.remove)
        network.run(ids)


def sums_of(features: Tensor) -> FeatureSums:
    """Sums of features (n, d), computed in float64 where they are."""
    x = features.double()
    is_finite = torch.isfinite(x).all(dim=1)
    nonfinite = int((~is_finite).sum())
    x = x if nonfinite == 0 else x[is_finite]
    if not len(x):
        return FeatureSums.empty(x.shape[1]) + FeatureSums.of(features.float().cpu().numpy())
    mean = x.mean(dim=0)
    lengths = torch.linalg.vector_norm(x, dim=1)
    is_long = lengths > 0
    directions = (x[is_long] / lengths[is_long, None]).sum(dim=0)
    centred = x - mean
    return FeatureSums(
        count=len(x),
        nonfinite=nonfinite,
        mean=mean.cpu().numpy(),
        scatter=(centred.T @ centred).cpu().numpy(),
        directions=directions.cpu().numpy(),
        nonzero=int(is_long.sum()),
        norms=float(lengths.sum()),
        longest=float(lengths.max()),
    )
