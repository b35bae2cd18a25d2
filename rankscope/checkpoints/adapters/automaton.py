"""Regular expressions from files, as automata that match in bounded time.

Python's engine takes for ever for some expressions: it tries every way to cut a text into repeats.
Here an expression becomes an automaton that is in all of its possible states at once, so that the
steps are at most the letters of the text times the states (K. Thompson, "Regular expression search
algorithm", CACM 11 (1968), 419). What an automaton cannot have, such as references to what was
found before, is refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from re import _constants, _parser  # type: ignore[attr-defined]
from typing import Any

from rankscope.checkpoints.limits import MAX_PATTERN

CATEGORIES = {
    _constants.CATEGORY_DIGIT: r"\d",
    _constants.CATEGORY_NOT_DIGIT: r"\D",
    _constants.CATEGORY_WORD: r"\w",
    _constants.CATEGORY_NOT_WORD: r"\W",
    _constants.CATEGORY_SPACE: r"\s",
    _constants.CATEGORY_NOT_SPACE: r"\S",
}
STARTS = (_constants.AT_BEGINNING, _constants.AT_BEGINNING_STRING)
ENDS = (_constants.AT_END, _constants.AT_END_STRING)

Test = Callable[[str], bool]


@dataclass
class Automaton:
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


def automaton_of(pattern: str) -> Automaton:
    """The automaton of a regular expression as Python writes it.

    Raises
    ------
    re.error, ValueError, TypeError, OverflowError, RecursionError
        If it is not one, or has what an automaton cannot have.
    """
    if len(pattern) > MAX_PATTERN:
        raise ValueError(f"has {len(pattern)} characters, more than {MAX_PATTERN}")
    # Within brackets, as PEFT puts it: a flag for the whole pattern is an error there.
    tree = _parser.parse(f"(.*\\.)?({pattern})$")
    if tree.state.flags & ~re.UNICODE:
        raise ValueError("sets a flag")
    automaton = Automaton()
    automaton.end = _built(automaton, _parser.parse(pattern), 0)
    return automaton


def _built(automaton: Automaton, nodes: Iterable[Any], start: int) -> int:
    """Add what a sequence of parsed parts accepts behind a state; returns where it ends."""
    for kind, argument in nodes:
        start = _BUILDERS[kind](automaton, argument, start) if kind in _BUILDERS else _refuse(kind)
    return start


def _refuse(kind: Any) -> int:
    raise ValueError(f"has the part {kind}, which is not matched in bounded time")


def _letter(automaton: Automaton, test: Test, start: int) -> int:
    # A state of its own, since that before may have moves already.
    own, end = automaton.state(), automaton.state()
    automaton.free[start].append(own)
    automaton.tests[own] = (test, end)
    return end


def _literal(automaton: Automaton, code: int, start: int) -> int:
    letter = chr(code)
    return _letter(automaton, lambda one: one == letter, start)


def _not_literal(automaton: Automaton, code: int, start: int) -> int:
    letter = chr(code)
    return _letter(automaton, lambda one: one != letter, start)


def _any(automaton: Automaton, _: Any, start: int) -> int:
    return _letter(automaton, lambda one: one != "\n", start)


def _in(automaton: Automaton, items: list[tuple[Any, Any]], start: int) -> int:
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


def _branch(automaton: Automaton, argument: tuple[Any, list[Any]], start: int) -> int:
    end = automaton.state()
    for nodes in argument[1]:
        first = automaton.state()
        automaton.free[start].append(first)
        automaton.free[_built(automaton, nodes, first)].append(end)
    return end


def _group(automaton: Automaton, argument: tuple[Any, int, int, Any], start: int) -> int:
    _, added, removed, nodes = argument
    if added or removed:
        raise ValueError("sets a flag")
    return _built(automaton, nodes, start)


def _repeat(automaton: Automaton, argument: tuple[int, Any, Any], start: int) -> int:
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


def _once(automaton: Automaton, nodes: Iterable[Any], start: int) -> int:
    """One repeat, which takes a state even if it is empty: so there cannot be billions of them."""
    own = automaton.state()
    automaton.free[start].append(own)
    return _built(automaton, nodes, own)


def _anchor(automaton: Automaton, where: Any, start: int) -> int:
    if where not in (*STARTS, *ENDS):
        return _refuse(where)
    own, end = automaton.state(), automaton.state()
    automaton.free[start].append(own)
    automaton.anchors[own] = (where in STARTS, end)
    return end


_BUILDERS: Mapping[Any, Callable[[Automaton, Any, int], int]] = {
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
