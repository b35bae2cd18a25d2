"""`Restart`: where adapters were merged and restarted, with what was merged and what came after."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal

from rankscope.checkpoints.adapters.peft_adapter import read_adapter
from rankscope.checkpoints.adapters.peft_config import CONFIG
from rankscope.checkpoints.contents import Adapter, Parameter, is_rescaled, restarts_between
from rankscope.checkpoints.layouts.axolotl_relora import BEFORE_MERGE
from rankscope.diagnostics.evidence import Evidence, Moment
from rankscope.errors import RankscopeError

Source = Literal["record", "counter", "rule"]
Adapters = Mapping[str, Adapter]


@dataclass(frozen=True)
class Restart:
    """One or more restarts between two checkpoints.

    Attributes
    ----------
    step
        Of the last merge; that of the later checkpoint where only a number of restarts is known.
    before, after
        The checkpoints around it: of frozen weights without and with what was merged.
    merged
        What each merge should have added, by module. Without a record it is the adapter of the
        earlier checkpoint, which may have learned more before the merge.
    old, new
        The last adapters before and the first after it, by module.
    source
        How it is known: a ``record`` of what was merged; a ``counter`` in the checkpoints; or a
        ``rule``, a setting by which the trainer should have restarted.
    count
        How many restarts there were.
    """

    step: int
    before: Moment
    after: Moment
    merged: tuple[Adapters, ...]
    old: Adapters
    new: Adapters
    source: Source
    count: int = 1

    @property
    def pairs(self) -> Iterator[tuple[Parameter, Parameter]]:
        """Frozen weights that are in both checkpoints, before and after."""
        for name, later in self.after.contents.parameters.items():
            earlier = self.before.contents.parameters.get(name)
            if earlier is None or earlier.shape != later.shape:
                continue
            if earlier.tensor is not None and later.tensor is not None:
                yield earlier, later


def iter_restarts(evidence: Evidence) -> Iterator[Restart]:
    """The restarts of a run, ascending, of which anything can be said from its checkpoints."""
    following = {one.step: other for one, other in pairwise(evidence.moments)}
    for before, now in evidence.pairs:
        if any(before.step <= step < now.step for step in evidence.merges.unread):
            continue
        within = [m for m in evidence.merges.read if before.step <= m.step < now.step]
        if within:
            merged = [_plain(merge.adapters) for merge in within]
            ended, new, count = merged[-1], adapters_of(now), len(within)
            merged[0] = _as_used(merged[0], adapters_of(before))
            step = within[-1].step
            yield Restart(step, before, now, tuple(merged), ended, new, "record", count)
            continue
        counted = restarts_between(before.contents, now.contents)
        if counted:
            old = adapters_of(before)
            source: Source = "rule" if now.contents.layout == "pico" else "counter"
            yield Restart(now.step, before, now, (old,), old, adapters_of(now), source, counted)
            continue
        ended = _merged_here(now)
        if ended:
            later = following.get(now.step)
            new = {} if later is None else adapters_of(later)
            yield Restart(now.step, before, now, (ended,), ended, new, "record")


def _as_used(merged: Adapters, live: Adapters) -> Adapters:
    """What a merge should have added: with the scale of the forward pass, not that of the merge.

    The adapters of a checkpoint are those of the next merge.
    """
    return {
        module: replace(adapter, scale=live[module].scale)
        if module in live and live[module].rank == adapter.rank
        else adapter
        for module, adapter in merged.items()
    }


def has_restart(evidence: Evidence, before: Moment, now: Moment) -> bool:
    """Whether adapters may have restarted between two checkpoints."""
    recorded = any(before.step <= step < now.step for step in evidence.merges.steps)
    counted = restarts_between(before.contents, now.contents)
    return recorded or counted > 0 or bool(_merged_here(before)) or bool(_merged_here(now))


def adapters_of(moment: Moment) -> Adapters:
    """The adapters of a checkpoint by module; those that it has just merged in Axolotl's layout."""
    parameters = moment.contents.parameters.values()
    found = {one.module: one.adapter for one in parameters if one.adapter is not None}
    return _plain(found) or _merged_here(moment)


def _merged_here(moment: Moment) -> Adapters:
    """The adapters that Axolotl stored before merging them into the weights of a checkpoint."""
    folder = moment.checkpoint.path / BEFORE_MERGE
    if moment.contents.layout != "axolotl-relora" or not (folder / CONFIG).is_file():
        return {}
    try:
        return _plain(read_adapter(folder, moment.checkpoint.options).adapters)
    except RankscopeError:
        return {}


def _plain(adapters: Mapping[str, object]) -> Adapters:
    """The adapters that add scale·B·A and nothing else, with a known scale."""
    return {
        module: adapter
        for module, adapter in adapters.items()
        if isinstance(adapter, Adapter) and not is_rescaled(adapter) and adapter.scale is not None
    }
