"""Patterns for names of modules, as PEFT's configs have them, matched in bounded time.

PEFT searches the first pattern of a table that fits the end of a module's path.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from itertools import takewhile
from typing import Any

from rankscope.checkpoints.adapters.automaton import Automaton, automaton_of
from rankscope.checkpoints.limits import MAX_NAME, MAX_STEPS
from rankscope.errors import RankscopeError, printable

REASON = "adapter-config"
PLAIN = re.compile(r"[\w.-]*")  # a dot stands for any letter, and for itself in all honest patterns
PARSED, BUILT = 25, 2  # steps for each letter of a pattern, and for each state that it becomes
LETTERS = 16  # that are compared in the time of a step
FAULTS = (re.error, RecursionError, OverflowError, ValueError, TypeError)


class Steps:
    """Steps that may still be taken for the patterns of one config."""

    def __init__(self) -> None:
        self._left = MAX_STEPS

    def take(self, steps: int) -> None:
        """Count steps.

        Raises
        ------
        RankscopeError
            If there were more than `MAX_STEPS`.
        """
        self._left -= steps
        if self._left < 0:
            raise RankscopeError(
                f"takes more than {MAX_STEPS} steps to match names with the patterns of its config",
                reason="over-limit",
            )


class NamePatterns:
    """A table of patterns and values, such as ``rank_pattern``, to look paths of modules up in.

    Parameters
    ----------
    table
        As in the config. PEFT writes patterns sorted, so the first one in training may not be the
        first in the file. Then PEFT itself loads the adapter with another value, and so does this.
    steps
        Those that all tables of a config may take together.

    Raises
    ------
    RankscopeError
        If a pattern is not a regular expression, or none that can be matched in bounded time.
    """

    def __init__(self, table: Mapping[str, Any], steps: Steps | None = None) -> None:
        self._values = list(table.values())
        self._steps = Steps() if steps is None else steps
        self._places = {pattern: place for place, pattern in enumerate(table)}
        self._others: list[tuple[int, Automaton]] = []
        self._dotted: dict[int, list[tuple[int, str]]] = {}  # by length
        for pattern, place in self._places.items():
            if not PLAIN.fullmatch(pattern):
                automaton = _automaton_of(pattern)
                self._steps.take(PARSED * len(pattern) + BUILT * len(automaton.free))
                self._others.append((place, automaton))
            elif "." in pattern:
                self._dotted.setdefault(len(pattern), []).append((place, pattern))

    def value(self, path: str, default: Any) -> Any:
        """Value of the first pattern that fits the end of a path after a dot, or all of it.

        Raises
        ------
        RankscopeError
            If the names looked up so far took more than `MAX_STEPS`.
        """
        if len(path) > MAX_NAME:
            raise _fault(f"its path has {len(path)} characters, more than {MAX_NAME}")
        found = min(self._iter_places(path), default=None)
        return default if found is None else self._values[found]

    def _iter_places(self, path: str) -> Iterable[int]:
        """Places of patterns that fit, with the first of them all among them."""
        ends = [path, *(path[i + 1 :] for i, letter in enumerate(path) if letter == ".")]
        literal = [
            self._places[end] for end in ends if end in self._places and PLAIN.fullmatch(end)
        ]
        first = min(literal, default=len(self._values))
        yield from literal
        for end in ends:
            for place, pattern in self._dotted.get(len(end), ()):
                if place >= first:
                    break
                pairs = zip(pattern, end, strict=True)
                alike = sum(1 for _ in takewhile(lambda pair: pair[0] in (pair[1], "."), pairs))
                self._steps.take(1 + alike // LETTERS)
                if alike == len(end):
                    yield place
                    break
        for place, automaton in self._others:
            if place >= first:
                break
            for end in ends:
                fits, steps = automaton.fits(end, at_start=len(end) == len(path))
                self._steps.take(steps)
                if fits:
                    yield place
                    return


def _automaton_of(pattern: str) -> Automaton:
    try:
        return automaton_of(pattern)
    except FAULTS as error:
        what = printable((str(error) or type(error).__name__).splitlines()[0], limit=80)
        kind = (
            "regular expression" if isinstance(error, re.error) else "pattern that is matched here"
        )
        raise _fault(f"{printable(pattern, limit=60)!r} is not a {kind} ({what})") from None


def _fault(message: str) -> RankscopeError:
    return RankscopeError(message, reason=REASON)
