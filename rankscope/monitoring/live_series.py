"""The series of copies of a live model: what each is measured from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from rankscope.checkpoints.contents import Adapter, Contents
from rankscope.checkpoints.merges import Merge, Merges
from rankscope.checkpoints.tensors import Tensor
from rankscope.components.component import Component
from rankscope.monitoring.live_model import GRADIENT
from rankscope.monitoring.matrix_groups import (
    Copied,
    Group,
    Places,
    components_at,
    copied,
    stored_in,
)
from rankscope.monitoring.origins import Origins

CUMULATIVE = "cumulative_update"
Key = tuple[str, ...]


@dataclass
class LiveSeries:
    """What was copied of a run so far, as far as it is still needed.

    Attributes
    ----------
    asked
        Names of the wanted components.
    origins
        Where cumulative updates begin.
    cosines
        Whether updates also have the cosine with the update before, for which one more copy is
        kept.
    """

    asked: Sequence[str]
    origins: Origins
    cosines: bool = False
    _last: dict[Key, Copied] = field(default_factory=dict)
    _second_last: dict[Key, Copied] = field(default_factory=dict)
    _merges: list[Merge] = field(default_factory=list)
    _counted: list[int] = field(default_factory=list)
    _before_merges: dict[str, Tensor] = field(default_factory=dict)
    _pinned: set[str] = field(default_factory=set)

    def at(
        self, group: Group, whole: Contents, step: int, places: Places
    ) -> tuple[tuple[Component, ...], frozenset[str]]:
        """What to decompose of a group that was copied, and the files that nothing needs then.

        Raises
        ------
        OSError
            If a first copy cannot be kept.
        """
        now = copied(group, whole, step, places)
        components = components_at(
            now,
            self._last.get(group.key),
            self._first(group, whole, step, places),
            second_last=self._second_last.get(group.key),
            asked=self.asked,
            merges=Merges(tuple(self._merges)),
            counted=self._restarts_counted,
            origins=self._before_merges,
        )
        done = frozenset(file for path, (file, _) in places.items() if path.startswith(GRADIENT))
        own = replace(now, files=now.files - done)
        done |= self._replaced(group.key, own) if self._is_start(group) else own.files
        return components, done - self._pinned

    def restart(self, contents: Contents, step: int, *, in_float64: bool) -> None:
        """Adapters of these contents were merged after this step.

        A merged weight keeps the rounding of the weight that it was merged into, so that the last
        copy before the first merge is kept.
        """
        if any(merge.step == step for merge in self._merges):
            return
        adapters = {
            p.module: p.adapter
            for p in contents.parameters.values()
            if isinstance(p.adapter, Adapter)
        }
        self._merges.append(Merge(step, Path(), adapters))
        if not in_float64:
            self._counted.append(step)
        for one in self._last.values():
            for name, parameter in one.contents.parameters.items():
                is_first = name not in self._before_merges
                if is_first and parameter.module in adapters and parameter.tensor is not None:
                    self._before_merges[name] = parameter.tensor
                    self._pinned |= {root.path for root in stored_in(parameter)}

    def drop_from(self, step: int) -> None:
        """The training resumed before this step: later copies no longer count."""
        self._merges = [merge for merge in self._merges if merge.step <= step]
        self._counted = [one for one in self._counted if one <= step]
        self.origins.drop_from(step)
        self._last.clear()
        self._second_last.clear()
        self._before_merges.clear()
        self._pinned.clear()

    def _first(self, group: Group, whole: Contents, step: int, places: Places) -> Copied | None:
        if CUMULATIVE not in self.asked or not group.parameters:
            return None
        first = self.origins.of(group, whole)
        if first is None:
            self.origins.begin(group, whole, step, places)
        return first

    def _is_start(self, group: Group) -> bool:
        """Whether a copy is needed later: for the next update, or as the weight before a merge."""
        weights = [p for p in group.parameters.values() if p.tensor is not None]
        is_adapted = any(p.adapter is not None for p in weights)
        return bool(group.parameters) and ("update" in self.asked or is_adapted)

    def _replaced(self, key: Key, now: Copied) -> frozenset[str]:
        """Make this the last copy of its group; gives the files that it replaces."""
        previous, oldest = self._last.get(key), self._second_last.get(key)
        self._last[key] = now
        if previous is not None and self.cosines:
            self._second_last[key] = previous
            previous = oldest
        return frozenset() if previous is None else previous.files

    def _restarts_counted(self, since: int, step: int) -> int | None:
        return sum(since <= one < step for one in self._counted) if self._counted else None
