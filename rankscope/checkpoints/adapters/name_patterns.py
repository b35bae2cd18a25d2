"""Patterns for names of modules, as PEFT's configs have them, matched in bounded time.

PEFT searches the first pattern of a table that fits the end of a module's path. A pattern is a
regular expression from a file, and Python's engine takes for ever for some of them: it tries every
way to cut the name into repeats. Here a pattern becomes an automaton that is in all of its possible
states at once, so that the steps are at most the letters of the name times the states (K. Thompson,
"Regular expression search algorithm", CACM 11 (1968), 419). What an automaton cannot have, such as
references to what was found before, is refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import takewhile
from re import _constants, _parser  # type: ignore[attr-defined]
from typing import Any

from rankscope.checkpoints.limits import MAX_NAME, MAX_PATTERN, MAX_STEPS
from rankscope.errors import RankscopeError, printable

REASON = "adapter-config"
PLAIN = re.compile(r"[\w.-]*")  # a dot stands for any letter, and for itself in all honest patterns
CATEGORIES = {
    _constants.CATEGORY_DIGIT: r"\d",
    _constants.CATEGORY_NOT_DIGIT: r"\D",
    _constants.CATEGORY_WORD: r"\w",
    _constants.CATEGORY_NOT_WORD: r"\W",
    _constants.CATEGORY_SPACE: r"\s",
    _constants.CATEGORY_NOT_SPACE: r"\S",
}
PARSED, BUILT = 25, 2  # steps for each letter of a pattern, and for each state that it becomes
LETTERS = 16  # that are compared in the time of a step
STARTS = (_constants.AT_BEGINNING, _constants.AT_BEGINNING_STRING)
ENDS = (_constants.AT_END, _constants.AT_END_STRING)
FAULTS = (re.error, RecursionError, OverflowError, ValueError, TypeError)

Test = Callable[[str], bool]


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
        self._others: list[tuple[int, _Automaton]] = []
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
            raise _fault(f"its path has {len(path)} letters, more than {MAX_NAME}")
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


@dataclass
class _Automaton:
    """States by number; it begins in 0 and accepts in ``end``."""

    free: list[list[int]] = field(default_factory=lambda: [[]])  # moves without a letter
    tests: list[tuple[Test, int] | None] = field(default_factory=lambda: [None])
    anchors: list[tuple[bool, int] | None] = field(default_factory=lambda: [None])
    end: int = 0

    def state(self) -> int:
        """A new state."""
        if len(self.free) >= MAX_PATTERN:
            raise ValueError(f"becomes more than {MAX_PATTERN} states")
        self.free.append([])
        self.tests.append(None)
        self.anchors.append(None)
        return len(self.free) - 1

    def fits(self, text: str, *, at_start: bool) -> tuple[bool, int]:
        """Whether it accepts all of a text, and how many steps that took.

        Parameters
        ----------
        at_start
            Whether the text begins where the whole path does, as ``^`` asks.
        """
        now = self._closed({0}, is_start=at_start, is_end=not text)
        steps = len(now)
        for place, letter in enumerate(text, start=1):
            moved = {
                to[1] for state in now if (to := self.tests[state]) is not None and to[0](letter)
            }
            now = self._closed(moved, is_start=False, is_end=place == len(text))
            steps += 1 + len(now)
            if not now:
                break
        return self.end in now, steps

    def _closed(self, states: set[int], *, is_start: bool, is_end: bool) -> set[int]:
        """The states with all that are reached without a letter."""
        found, waiting = set(states), list(states)
        while waiting:
            state = waiting.pop()
            anchor = self.anchors[state]
            nexts = self.free[state]
            if anchor is not None and (is_start if anchor[0] else is_end):
                nexts = [*nexts, anchor[1]]
            fresh = [one for one in nexts if one not in found]
            found.update(fresh)
            waiting += fresh
        return found


def _automaton_of(pattern: str) -> _Automaton:
    try:
        if len(pattern) > MAX_PATTERN:
            raise ValueError(f"has {len(pattern)} letters, more than {MAX_PATTERN}")
        # Within brackets, as PEFT puts it: a flag for the whole pattern is an error there.
        tree = _parser.parse(f"(.*\\.)?({pattern})$")
        if tree.state.flags & ~re.UNICODE:
            raise ValueError("sets a flag")
        automaton = _Automaton()
        automaton.end = _built(automaton, _parser.parse(pattern), 0)
        return automaton
    except FAULTS as error:
        what = printable((str(error) or type(error).__name__).splitlines()[0], limit=80)
        kind = (
            "regular expression" if isinstance(error, re.error) else "pattern that is matched here"
        )
        raise _fault(f"{printable(pattern, limit=60)!r} is not a {kind} ({what})") from None


def _built(automaton: _Automaton, nodes: Iterable[Any], start: int) -> int:
    """Add what a sequence of parsed parts accepts behind a state; returns where it ends."""
    for kind, argument in nodes:
        start = _BUILDERS[kind](automaton, argument, start) if kind in _BUILDERS else _refuse(kind)
    return start


def _refuse(kind: Any) -> int:
    raise ValueError(f"has the part {kind}, which is not matched in bounded time")


def _letter(automaton: _Automaton, test: Test, start: int) -> int:
    # A state of its own, since that before may have moves already.
    own, end = automaton.state(), automaton.state()
    automaton.free[start].append(own)
    automaton.tests[own] = (test, end)
    return end


def _literal(automaton: _Automaton, code: int, start: int) -> int:
    letter = chr(code)
    return _letter(automaton, lambda one: one == letter, start)


def _not_literal(automaton: _Automaton, code: int, start: int) -> int:
    letter = chr(code)
    return _letter(automaton, lambda one: one != letter, start)


def _any(automaton: _Automaton, _: Any, start: int) -> int:
    return _letter(automaton, lambda one: one != "\n", start)


def _in(automaton: _Automaton, items: list[tuple[Any, Any]], start: int) -> int:
    # Tried by Python's engine, for whom a class of a thousand letters is one step as any other.
    one_of = re.compile(f"[{''.join(_item(*item) for item in items)}]")
    return _letter(automaton, lambda one: one_of.match(one) is not None, start)


def _item(kind: Any, argument: Any) -> str:
    if kind is _constants.NEGATE:  # always the first
        return "^"
    if kind is _constants.LITERAL:
        return _code(argument)
    if kind is _constants.RANGE:
        return f"{_code(argument[0])}-{_code(argument[1])}"
    return CATEGORIES[argument]


def _code(number: int) -> str:
    return f"\\U{number:08x}"


def _branch(automaton: _Automaton, argument: tuple[Any, list[Any]], start: int) -> int:
    end = automaton.state()
    for nodes in argument[1]:
        first = automaton.state()
        automaton.free[start].append(first)
        automaton.free[_built(automaton, nodes, first)].append(end)
    return end


def _group(automaton: _Automaton, argument: tuple[Any, int, int, Any], start: int) -> int:
    _, added, removed, nodes = argument
    if added or removed:
        raise ValueError("sets a flag")
    return _built(automaton, nodes, start)


def _repeat(automaton: _Automaton, argument: tuple[int, Any, Any], start: int) -> int:
    least, most, nodes = argument
    for _ in range(least):
        start = _once(automaton, nodes, start)
    end = automaton.state()
    automaton.free[start].append(end)
    if most is _constants.MAXREPEAT:
        first = automaton.state()
        automaton.free[start].append(first)
        last = _built(automaton, nodes, first)
        automaton.free[last] += [first, end]
        return end
    for _ in range(least, most):
        start = _once(automaton, nodes, start)
        automaton.free[start].append(end)
    return end


def _once(automaton: _Automaton, nodes: Iterable[Any], start: int) -> int:
    """One repeat, which takes a state even if it is empty: so there cannot be billions of them."""
    own = automaton.state()
    automaton.free[start].append(own)
    return _built(automaton, nodes, own)


def _anchor(automaton: _Automaton, where: Any, start: int) -> int:
    if where not in (*STARTS, *ENDS):
        return _refuse(where)
    own, end = automaton.state(), automaton.state()
    automaton.free[start].append(own)
    automaton.anchors[own] = (where in STARTS, end)
    return end


_BUILDERS: Mapping[Any, Callable[[_Automaton, Any, int], int]] = {
    _constants.LITERAL: _literal,
    _constants.NOT_LITERAL: _not_literal,
    _constants.ANY: _any,
    _constants.IN: _in,
    _constants.BRANCH: _branch,
    _constants.SUBPATTERN: _group,
    _constants.MAX_REPEAT: _repeat,
    _constants.MIN_REPEAT: _repeat,
    _constants.AT: _anchor,
}


def _fault(message: str) -> RankscopeError:
    return RankscopeError(message, reason=REASON)
