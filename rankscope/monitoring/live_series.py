"""The series of copies of a live model: what each is measured from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from rankscope.checkpoints.contents import Adapter, Contents
from rankscope.checkpoints.merges import Merge, Merges
from rankscope.checkpoints.tensors import Tensor
from rankscope.monitoring.matrix_groups import Copied, Group, components_at, copied, stored_in
from rankscope.monitoring.messages import Measure
from rankscope.monitoring.origins import Kept, Origins

CUMULATIVE = "cumulative_update"


@dataclass
class LiveSeries:
    """What a monitored run has copied so far, as far as it is still needed.

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
    _last: dict[tuple[str, ...], Copied] = field(default_factory=dict)
    _second_last: dict[tuple[str, ...], Copied] = field(default_factory=dict)
    _merges: list[Merge] = field(default_factory=list)
    _counted: list[int] = field(default_factory=list)
    _before_merges: dict[str, Tensor] = field(default_factory=dict)
    _pinned: set[str] = field(default_factory=set)

    def measure(
        self, group: Group, whole: Contents, step: int, files: Mapping[str, str]
    ) -> Measure:
        """What to decompose of a group that was copied to ``files``, and which copies may go."""
        now = copied(group, whole, step, files)
        previous = self._last.get(group.key)
        first, kept = self._first(group, whole, step, files)
        components = components_at(
            now,
            previous,
            first,
            second_last=self._second_last.get(group.key),
            asked=self.asked,
            merges=Merges(tuple(self._merges)),
            counted=self._restarts_counted,
            origins=self._before_merges,
        )
        own = {tensor.path: files[tensor.path] for tensor in group.tensors if tensor.path in files}
        done = {*files.values()}
        if self._is_start(group):
            self._last[group.key] = replace(now, files=own)
            done -= {*own.values()}
            done |= self._no_longer(group, previous)
        nbytes = sum(
            tensor.nbytes
            for one in (*group.parameters.values(), *group.gradients.values())
            for tensor in {root.path: root for root in stored_in(one)}.values()
            if tensor.path in files
        )
        return Measure(step, components, nbytes, kept, tuple(sorted(done - self._pinned)))

    def restart(self, contents: Contents, step: int, *, in_float64: bool) -> None:
        """Adapters of these contents were merged after this step.

        A merged weight keeps the rounding of the weight that it was merged into, so that the last
        copy before the first merge is kept.
        """
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
                    alone = replace(parameter, adapter=None)
                    self._pinned |= {root.path for root in stored_in(alone)}

    def drop_from(self, step: int) -> None:
        """The training goes on from before this step: nothing of the future counts."""
        self._merges = [merge for merge in self._merges if merge.step < step]
        self._counted = [one for one in self._counted if one < step]
        self.origins.drop_from(step)
        self.forget()

    def forget(self) -> None:
        """All copies are gone but those where cumulative updates begin."""
        self._last.clear()
        self._second_last.clear()
        self._before_merges.clear()
        self._pinned.clear()

    def _first(
        self, group: Group, whole: Contents, step: int, files: Mapping[str, str]
    ) -> tuple[Copied | None, Kept]:
        if CUMULATIVE not in self.asked or not group.parameters:
            return None, ()
        first = self.origins.of(group, whole)
        if first is None:
            return None, self.origins.begin(group, whole, step, files)
        return (first if first.step < step else None), ()

    def _is_start(self, group: Group) -> bool:
        """Whether a copy is needed later: for the next update, or as the weight before a merge."""
        has_weights = [p for p in group.parameters.values() if p.tensor is not None]
        is_adapted = any(p.adapter is not None for p in has_weights)
        return bool(group.parameters) and ("update" in self.asked or is_adapted)

    def _no_longer(self, group: Group, previous: Copied | None) -> set[str]:
        """The copies that nothing needs now that there is a newer one."""
        if previous is None:
            return set()
        if not self.cosines:
            return {*previous.files.values()}
        oldest = self._second_last.get(group.key)
        self._second_last[group.key] = previous
        return set() if oldest is None else {*oldest.files.values()}

    def _restarts_counted(self, since: int, step: int) -> int | None:
        return sum(since <= one < step for one in self._counted) if self._counted else None
