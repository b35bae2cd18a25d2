"""Shards: an analysis in N calls on any machines, each of which computes its share.

Every shard plans the whole analysis, which reads headers only, and deals the tasks out in the same
way, so that the shards need not know of each other. Tasks are dealt rather than steps: a few steps
of a large model can be shared by many machines.
"""

from __future__ import annotations

import re
from array import array
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from heapq import heapreplace
from pathlib import Path

from rankscope.analysis.jobs import LEAST_WORK
from rankscope.errors import WrongSettingError
from rankscope.pipeline.engine import TaskT
from rankscope.pipeline.execution import Plan, Plans


@dataclass(frozen=True)
class Shard:
    """One of ``count`` shares of an analysis, numbered from 1."""

    number: int
    count: int

    @classmethod
    def of(cls, given: str) -> Shard:
        """A shard as given: ``"3/16"``.

        Raises
        ------
        WrongSettingError
            If it is not of this form, or not one of the shards.

        Examples
        --------
        >>> print(Shard.of("3/16"))
        3/16
        """
        match = re.fullmatch(r"([0-9]{1,6})/([0-9]{1,6})", str(given))
        number, count = map(int, match.groups()) if match else (0, 0)
        if not 1 <= number <= count:
            raise WrongSettingError(
                f"`shard` {given!r} is not one of 1/N, 2/N, … N/N, where N is the number of shards"
            )
        return cls(number, count)

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    @property
    def folder(self) -> str:
        """Name of its folder among the results."""
        return f"{self.number}-of-{self.count}"


class Dealer:
    """Deals tasks to shards: each to the one with the least work so far.

    The largest task of a step comes first, so that two shards differ by no more work than one task
    has. What was dealt stays as it is when a run has a new step.
    """

    def __init__(self, count: int) -> None:
        self._loads = [(0.0, number) for number in range(1, count + 1)]  # a heap

    def deal(self, tasks: Sequence[TaskT]) -> list[int]:
        """The number of the shard of each task of a plan."""
        owners = [0] * len(tasks)
        work = [max(task.work, LEAST_WORK) for task in tasks]
        for at in sorted(range(len(tasks)), key=lambda at: -work[at]):
            load, owners[at] = self._loads[0]
            heapreplace(self._loads, (load + work[at], owners[at]))
        return owners


class ShardPlans(Plans[TaskT]):
    """A shard's share of some plans; afterwards also the number of all tasks.

    Parameters
    ----------
    path_of
        File of a plan in the shard's store.
    """

    def __init__(
        self, plans: Plans[TaskT], shard: Shard, *, path_of: Callable[[Plan[TaskT]], Path]
    ) -> None:
        self._all, self._shard, self._path_of = plans, shard, path_of
        # File, keys and owners of all tasks, as bytes: there may be millions.
        self._dealt: list[tuple[Path, bytes, array[int]]] = []
        super().__init__(self._iter_own())

    def __iter__(self) -> Iterator[Plan[TaskT]]:
        yield from super().__iter__()
        self.notes = list(self._all.notes)

    def _iter_own(self) -> Iterator[Plan[TaskT]]:
        dealer = Dealer(self._shard.count)
        for plan in self._all:
            owners = dealer.deal(plan.tasks)
            if owners:
                keys = b"".join(bytes.fromhex(task.key) for task in plan.tasks)
                self._dealt.append((self._path_of(plan), keys, array("L", owners)))
            pairs = zip(plan.tasks, owners, strict=True)
            own = tuple(task for task, owner in pairs if owner == self._shard.number)
            yield replace(plan, tasks=own, about=None)

    @property
    def counts(self) -> Counter[int]:
        """Number of tasks by shard."""
        return Counter(owner for _, _, owners in self._dealt for owner in owners)

    def missing(self, held_in: Callable[[Path], Collection[str]]) -> Counter[int]:
        """Number of tasks by shard whose results no store has.

        Parameters
        ----------
        held_in
            Returns the keys of the entries for a file of the shard's store.
        """
        found: Counter[int] = Counter()
        for path, keys, owners in self._dealt:
            held, size = held_in(path), len(keys) // len(owners)
            for at, owner in enumerate(owners):
                found[owner] += keys[at * size : (at + 1) * size].hex() not in held
        return +found
