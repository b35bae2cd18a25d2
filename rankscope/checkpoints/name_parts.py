"""The parts of one name: words, and numbers with what each could mean by the word beside it.

What a number counts is decided among siblings (`rankscope.checkpoints.sibling_names`). Here each
gets a kind:

``step``, ``epoch``, ``tokens``
    Beside a word that counts a training. A training that counts under another word is a series
    only where its numbers look like a count.
``time``
    A date, or a time of day.
``free``
    Beside a word that says nothing.

A number that was measured, such as a loss, is left out of what names have in common: two trainings
told apart by such a number alone meet in one, and steps that they share are named as duplicates.
All other numbers are part of the name, as words are: seeds, sizes, versions, ranks, settings. A
training that counts under such a word (``rank_100``) is not seen as a series.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Literal

from rankscope.checkpoints.name_words import (
    COUNTING,
    LIMITS,
    MEASURES,
    SETTINGS,
    STEPS,
    TOKENS,
    Kind,
)
from rankscope.checkpoints.steps import DATE, LIMIT, SHARD, UNITS, stated_step

Unit = Literal["step", "epoch", "tokens"]

COPY_MARK = re.compile(r"\(\d{1,3}\)")
PIECE = re.compile(
    rf"(?P<shard>{SHARD})"
    rf"|(?P<time>{DATE}(?:[-_t ]{{1,2}}\d\d[-_:h.]?\d\d(?:[-_:m.]?\d\d)?(?!\d))?"
    r"|(?<!\d)1[4-9]\d{8}(?!\d))"
    r"|(?P<number>[0-9]+(?:\.[0-9]+)?(?:e[-+]?[0-9]+)?)(?P<suffix>[a-z]*)"
    r"|(?P<word>(?<![a-z])(?:f1|r2|top[15]|map\d\d)(?![a-z\d])|[^\W\d_]+)|(?P<slash>/)"
)


@dataclass(frozen=True)
class Number:
    """A number of a name that may count.

    Attributes
    ----------
    count
        Its value; None where it is not whole.
    unit
        What it counts if it is the step.
    is_stated
        Whether it is a step in any name, whatever lies beside it.
    is_before
        Whether the word that says what it counts stands behind it, and another before it: a
        training saves ``model_10000_steps``, but ``turbo-4-steps`` is a setting.
    """

    kind: Kind
    text: str
    count: int | None
    unit: Unit = "step"
    is_stated: bool = False
    is_before: bool = False


@dataclass
class NameParts:
    """A name taken apart.

    Attributes
    ----------
    words
        In order, with ``#step`` and so on where a number stands.
    times
        Dates and times of day, which are not among the words.
    """

    words: list[str] = field(default_factory=list)
    numbers: list[Number] = field(default_factory=list)
    times: list[str] = field(default_factory=list)


def parts_of(name: str) -> NameParts:
    """Take a name apart: without suffix, in any case, folders in it divided by ``/``."""
    text = COPY_MARK.sub(" copy ", name.lower())
    stated = stated_step(text)
    start = -1 if stated is None else stated.start("number")
    parts, pieces, passed = NameParts(), list(PIECE.finditer(text)), False
    for place, piece in enumerate(pieces):
        if passed:  # a word that belongs to the number before it
            passed = False
        elif piece["number"] is None:
            (parts.times if piece["time"] else parts.words).append(piece[0])
        else:
            seen = _Seen(pieces, place, is_stated=piece.start() == start)
            passed = seen.takes_the_next
            _add(parts, seen)
    if any(number.kind in ("step", "epoch") for number in parts.numbers):
        parts.words = [word for word in parts.words if word != "#tokens"]
        parts.numbers = [number for number in parts.numbers if number.kind != "tokens"]
    return parts


class _Seen:
    """A number between its neighbours."""

    def __init__(self, pieces: list[re.Match[str]], place: int, *, is_stated: bool) -> None:
        piece = pieces[place]
        words = [p["word"] or "" if p else "" for p in _around(pieces, place)]
        self.text, self.suffix, self.is_stated = piece["number"], piece["suffix"], is_stated
        self.before, self.label, self.right = words
        self.is_glued = place > 0 and pieces[place - 1].end() == piece.start()
        if place + 2 < len(pieces) and pieces[place + 2]["number"] is not None:
            self.right = ""  # it is the label of the next number
        self.takes_the_next = self.kind == "tokens" and self.right in TOKENS

    @property
    def kind(self) -> Kind | Literal["value", "name"]:
        """What the number could mean."""
        if self.is_stated:
            return "step"
        if self.label in COUNTING and self.before in LIMITS:
            return "name"
        if self.label == "copy":
            return "value"
        counted = self._counted
        if counted is not None:
            return counted
        if self.label in MEASURES or self.suffix in MEASURES:
            return "value"
        is_setting = self.label in SETTINGS or (self.is_glued and len(self.label) == 1)
        if self.suffix or is_setting:
            return "name"
        if self.text.isdigit():
            return "free"
        # 3.5 and 0.5B are versions and sizes; 0.53 and 12.25 are measured.
        fraction = self.text.partition(".")[2]
        is_measure = not self.is_glued and (len(fraction) > 1 or self.text.startswith("0."))
        return "free" if is_measure or "e" in self.text else "name"

    @property
    def _counted(self) -> Kind | None:
        left = "epoch" if self.label == "e" and self.is_glued else COUNTING.get(self.label)
        if left is not None and self._is_whole_or_in_units(self.label):
            return left
        if left == "tokens" and self.suffix in UNITS:
            return left
        if self.suffix in COUNTING:
            return COUNTING[self.suffix]
        if self.right in COUNTING and self._is_whole_or_in_units(self.right):
            return COUNTING[self.right]
        is_tokens = self.suffix in UNITS and self.right in TOKENS
        return "tokens" if is_tokens or self.suffix in ("mt", "bt", "tt") else None

    def _is_whole_or_in_units(self, word: str) -> bool:
        """Whether its suffix lets it count: steps come in millions, and models in ``ckpt-70m``."""
        return self.suffix in ("", "k") or (self.suffix == "m" and word in STEPS)

    @property
    def is_before(self) -> bool:
        """Whether the word that says what it counts is behind it, and it is not the first part."""
        is_labelled = self.label in COUNTING or (self.label == "e" and self.is_glued)
        return bool(self.label) and not is_labelled and self.suffix not in COUNTING

    @property
    def unit(self) -> Unit:
        if self.kind == "epoch":
            return "epoch"
        is_tokens = self.kind == "tokens" and (
            TOKENS & {self.label, self.right} or self.suffix in ("mt", "bt", "tt")
        )
        return "tokens" if is_tokens else "step"

    @property
    def count(self) -> int | None:
        """Its value where that is whole."""
        if len(self.text) > 30 or ("e" in self.text and self.kind == "free"):
            return None
        unit = self.suffix[:1] if self.suffix in (*UNITS, "mt", "bt", "tt") else ""
        value = Decimal(self.text) * UNITS[unit]
        return int(value) if value < LIMIT and value == value.to_integral_value() else None


def _around(pieces: list[re.Match[str]], place: int) -> list[re.Match[str] | None]:
    """The two pieces before a place, and the one behind it."""
    there = (place - 2, place - 1, place + 1)
    return [pieces[i] if 0 <= i < len(pieces) else None for i in there]


def _add(parts: NameParts, seen: _Seen) -> None:
    kind = seen.kind
    if kind == "value":
        while parts.words and parts.words[-1] in MEASURES:
            parts.words.pop()
    elif kind == "name":
        parts.words.append(seen.text + seen.suffix)
    else:
        if kind == "tokens" and parts.words and COUNTING.get(parts.words[-1]) == "tokens":
            parts.words.pop()
        parts.words.append(f"#{kind}")
        before = kind != "free" and seen.is_before
        number = Number(kind, seen.text, seen.count, seen.unit, seen.is_stated, before)
        parts.numbers.append(number)
