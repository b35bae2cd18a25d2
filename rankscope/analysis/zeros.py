"""Which matrices are unexpectedly zero, and at which steps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from rankscope.analysis.history import BETWEEN
from rankscope.analysis.measured_steps import NOTHING, MeasuredStep
from rankscope.analysis.summary_lines import grouped
from rankscope.checkpoints.run import listed

Interval = tuple[str, int | None, int]  # run, since and step of a change


@dataclass
class _Updates:
    """The updates of one interval, and how many of them are zero."""

    count: int = 0
    zero: int = 0

    @property
    def are_zero(self) -> bool:
        return self.zero == self.count


class Zeros:
    """Zero matrices, counted step by step."""

    def __init__(self) -> None:
        self._updates: dict[Interval, _Updates] = {}
        self._zero: Counter[tuple[str, Interval]] = Counter()

    def add(self, found: MeasuredStep) -> None:
        """Add the rows of a step."""
        columns, components = found.columns, found.matrices.components
        updates = found.matrices.by_component.get("update", NOTHING)
        zero = columns.rows_with("status", "zero")
        for since, count in Counter(columns.cells("since", updates)).items():
            self._updates.setdefault((found.run, since, found.step), _Updates()).count += count
        for index, since in zip(zero.tolist(), columns.cells("since", zero), strict=True):
            component, interval = components[index], (found.run, since, found.step)
            if component == "update":
                self._updates[interval].zero += 1
            if component != "adapter" or found.step > 0:  # adapters start with B = 0
                self._zero[component, interval] += 1

    def in_words(self, units: Mapping[str, str]) -> list[str]:
        """Where two checkpoints in a row hold the same weights, and which others are zero."""
        return [*self._repeated(units), *self._others(units)]

    def _repeated(self, units: Mapping[str, str]) -> list[str]:
        same = []
        for (run, since, step), own in self._updates.items():
            if own.are_zero:
                unit, count = units.get(run, "step"), own.count
                what = f"all {count} measured matrices" if count > 1 else "the measured matrix"
                same.append(
                    f"{run}: {unit} {step} holds the same weights as {unit} {since} in {what}: "
                    "that is why the updates between them are zero"
                )
        return same

    def _others(self, units: Mapping[str, str]) -> list[str]:
        """Zero matrices outside the intervals that `_repeated` names."""
        repeated = {interval for interval, own in self._updates.items() if own.are_zero}
        zero = [
            (run, component, step, count)
            for (component, (run, since, step)), count in self._zero.items()
            if component not in BETWEEN or (run, since, step) not in repeated
        ]
        named = []
        for (run, component), own in grouped(zero, lambda one: one[:2]).items():
            steps = tuple(sorted({step for _, _, step, _ in own}))
            at = listed(steps).replace("step", units.get(run, "step"))
            why = ": the weights did not change" if component in BETWEEN else ""
            count = sum(count for *_, count in own)
            named.append(f"{run} {component.replace('_', ' ')} ({count} at {at}{why})")
        return [f"zero matrices, which have no rank: {', '.join(named)}"] if named else []
