"""When to measure, and how many matrices: so that it costs a stated share of training time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

GroupT = TypeVar("GroupT")
Key = tuple[str, ...]


@dataclass
class SamplingClock:
    """Counts what copying costs the training, and allows as much as its share.

    The first copy of each matrix is an advance: all changes need a start. Nothing more is copied
    until the advance is within the share, and from then on a copy is made only if seconds spent
    here, with what this copy cost the last time, are at most ``share`` · seconds since the start.

    Attributes
    ----------
    share
        Of the wall time of the training; None for no limit.
    every
        Steps between two rounds.
    now
        Gives the time in seconds.
    """

    share: float | None
    every: int
    now: Callable[[], float] = time.perf_counter
    _began: float | None = None
    _spent: float = 0.0
    _opened: float | None = None
    _last: int | None = None
    _costs: dict[Key, float] = field(default_factory=dict)
    _next: Key | None = None

    @property
    def elapsed(self) -> float:
        """Seconds since the first call."""
        return 0.0 if self._began is None else self.now() - self._began

    @property
    def spent(self) -> float:
        """Seconds that the training waited so far."""
        return self._spent + (0.0 if self._opened is None else self.now() - self._opened)

    @contextmanager
    def counting(self) -> Iterator[None]:
        """Count the time of this block as spent."""
        self._opened = self.now()
        self._began = self._opened if self._began is None else self._began
        try:
            yield
        finally:
            self._spent += self.now() - self._opened
            self._opened = None

    def is_due(self, step: int) -> bool:
        """Whether a round begins at this step: the first, one that goes back, and each multiple."""
        last = self._last
        due = last is None or step < last or step // self.every > last // self.every
        self._last = step if due else last
        return due

    def turn(self, groups: Mapping[Key, GroupT]) -> Iterator[tuple[Key, GroupT]]:
        """The groups whose turn it is, as many as the share allows, each at most once.

        A round goes on where the last one stopped, so that all are measured equally often. It waits
        for a dear group rather than preferring cheap ones. A group after which the caller stops is
        the first of the next round.
        """
        keys = list(groups)
        start = 0 if self._next is None or self._next not in groups else keys.index(self._next)
        for key in (*keys[start:], *keys[:start]):
            self._next = key
            if not self._allows(key):
                return
            began = self.now()
            yield key, groups[key]
            self._costs[key] = self.now() - began
        self._next = keys[start] if keys else None

    def _allows(self, key: Key) -> bool:
        if self.share is None or key not in self._costs:
            return True
        return self.spent + self._costs[key] <= self.share * self.elapsed
