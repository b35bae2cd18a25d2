"""The parts of one name: its words, and its numbers with what each of them could mean.

What a number counts is decided among siblings (`rankscope.checkpoints.sibling_names`). Here each
number gets a kind, from the words beside it:

``step``, ``epoch``, ``tokens``
    Beside a word that counts training. A training that counts under another word is a series
    only if its numbers look like a count.
``time``
    A date or a time of day.
``free``
    Beside a word that says nothing; or a learning rate after a number that counts, since a
    schedule may have lowered it.

A measured number, such as a loss, is left out of what names have in common. Two trainings that
differ only in such a number are therefore read as one, and the steps they share are reported as
duplicates. All other numbers are part of the name, as words are: seeds, sizes, versions, ranks,
settings. A training that counts under such a word (``rank_100``) is not recognised as a series.
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
    SAMPLES,
    SETTINGS,
    STEPS,
    TOKENS,
    Kind,
    Unit,
)
from rankscope.checkpoints.steps import DATE, LIMIT, SHARD, UNITS, stated_step

COPY_MARK = re.compile(r"\(\d{1,3}\)")
PIECE = re.compile(
    rf"(?P<shard>{SHARD})"
    rf"|(?P<time>{DATE}(?:[-_t ]{{1,2}}\d\d[-_:h.]?\d\d(?:[-_:m.]?\d\d)?(?!\d))?"
    r"|(?<!\d)1[4-9]\d{8}(?!\d))"
    r"|(?P<number>[0-9]+(?:\.[0-9]+)?(?:e[-+]?[0-9]+)?)(?P<suffix>[a-z]*)"
    r"|(?P<word>(?<![a-z])(?:f1|r2|top[15]|map\d\d)(?![a-z\d])|[^\W\d_]+)|(?P<slash>/)"
)
KIMG = 1000  # images in a kimg
MINUS = re.compile(r"[-_= ]-$")  # before a number: step_-1


@dataclass(frozen=True)
class Number:
    """A number in a name that may count.

    Attributes
    ----------
    count
        Its value; None if it is not whole.
    unit
        What it counts if it is the step.
    is_stated
        Whether it is a step in any name, whatever is beside it.
    is_before
        Whether the word that says what it counts comes after it, with another word before it:
        a training saves ``model_10000_steps``, but ``turbo-4-steps`` is a setting.
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
        In order, with ``#step``, ``#free`` and so on in the place of numbers.
    times
        Dates and times of day, which are not among the words.
    """

    words: list[str] = field(default_factory=list)
    numbers: list[Number] = field(default_factory=list)
    times: list[str] = field(default_factory=list)

    @property
    def is_no_step(self) -> bool:
        """Whether it counts by a number that no training reaches: negative, or of 30 digits."""
        return any(
            one.kind in ("step", "epoch", "tokens") and one.count is None and one.text.isdigit()
            for one in self.numbers
        )


def parts_of(name: str) -> NameParts:
    """Take a name apart: without its suffix, in any case, folders in it separated by ``/``."""
    text = COPY_MARK.sub(" copy ", name.lower())
    stated = stated_step(text)
    start = -1 if stated is None else stated.start("number")
    parts, pieces, is_label = NameParts(), list(PIECE.finditer(text)), False
    for index, piece in enumerate(pieces):
        if is_label:  # of the number before it
            is_label = False
        elif piece["number"] is None:
            (parts.times if piece["time"] else parts.words).append(piece[0])
        else:
            number = _NumberInName(pieces, index, is_stated=piece.start() == start)
            is_label = number.takes_the_next
            _add(parts, number)
    if any(number.kind in ("step", "epoch") for number in parts.numbers):
        parts.words = [word for word in parts.words if word != "#tokens"]
        parts.numbers = [number for number in parts.numbers if number.kind != "tokens"]
    return parts


class _NumberInName:
    """A number between its neighbours."""

    def __init__(self, pieces: list[re.Match[str]], index: int, *, is_stated: bool) -> None:
        piece = pieces[index]
        words = [p["word"] or "" if p else "" for p in _around(pieces, index)]
        self.text, self.suffix, self.is_stated = piece["number"], piece["suffix"], is_stated
        self.before, self.label, self.after = words
        self.is_glued = index > 0 and pieces[index - 1].end() == piece.start()
        self.is_negative = MINUS.search(piece.string, 0, piece.start()) is not None
        if index + 2 < len(pieces) and pieces[index + 2]["number"] is not None:
            self.after = ""  # it is the label of the next number
        self.takes_the_next = self.kind == "tokens" and self.after in TOKENS

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
    def is_learning_rate(self) -> bool:
        """Whether it is the learning rate of a training, which is not a whole number."""
        return self.label == "lr" and not self.suffix and not self.text.isdigit()

    @property
    def _counted(self) -> Kind | None:
        labelled = "epoch" if self.label == "e" and self.is_glued else COUNTING.get(self.label)
        if labelled is not None and self._is_whole_or_in_units(self.label):
            return labelled
        if labelled == "tokens" and self.suffix in UNITS:
            return labelled
        if self.suffix in COUNTING:
            return COUNTING[self.suffix]
        if self.after in COUNTING and self._is_whole_or_in_units(self.after):
            return COUNTING[self.after]
        is_tokens = self.suffix in UNITS and self.after in TOKENS
        return "tokens" if is_tokens or self.suffix in ("mt", "bt", "tt") else None

    def _is_whole_or_in_units(self, word: str) -> bool:
        """Whether its suffix lets it count: steps come in millions, models in ``ckpt-70m``."""
        return self.suffix in ("", "k") or (self.suffix == "m" and word in STEPS)

    @property
    def is_before(self) -> bool:
        """Whether the word that says what it counts is after it, and another word before it."""
        is_labelled = self.label in COUNTING or (self.label == "e" and self.is_glued)
        return bool(self.label) and not is_labelled and self.suffix not in COUNTING

    @property
    def unit(self) -> Unit:
        """What it counts; steps where no word says so."""
        if self.kind == "epoch":
            return "epoch"
        if self.kind != "tokens":
            return "step"
        return "samples" if SAMPLES & {self.label, self.suffix, self.after} else "tokens"

    @property
    def count(self) -> int | None:
        """Its value if that is whole, not negative, and small enough for a table."""
        if self.is_negative or len(self.text) > 30 or ("e" in self.text and self.kind == "free"):
            return None
        unit = self.suffix[:1] if self.suffix in (*UNITS, "mt", "bt", "tt") else ""
        value = Decimal(self.text) * UNITS[unit]
        if self.kind == "tokens" and "kimg" in (self.label, self.suffix, self.after):
            value *= KIMG
        return int(value) if value < LIMIT and value == value.to_integral_value() else None


def _around(pieces: list[re.Match[str]], index: int) -> list[re.Match[str] | None]:
    """The two pieces before an index, and the one after it."""
    around = (index - 2, index - 1, index + 1)
    return [pieces[i] if 0 <= i < len(pieces) else None for i in around]


def _add(parts: NameParts, number: _NumberInName) -> None:
    kind = number.kind
    if kind == "name" and number.is_learning_rate:
        is_after = any(one.kind in ("step", "epoch") for one in parts.numbers)
        kind = "free" if is_after else "name"
    if kind == "value":
        while parts.words and parts.words[-1] in MEASURES:
            parts.words.pop()
    elif kind == "name":
        parts.words.append(number.text + number.suffix)
    else:
        if kind == "tokens" and parts.words and COUNTING.get(parts.words[-1]) == "tokens":
            parts.words.pop()
        parts.words.append(f"#{kind}")
        is_before = kind != "free" and number.is_before
        # A learning rate never counts, not even a whole one such as 1e-0.
        count = None if number.is_learning_rate else number.count
        parts.numbers.append(
            Number(kind, number.text, count, number.unit, number.is_stated, is_before)
        )
