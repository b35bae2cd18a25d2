"""Names and labels as texts of a figure: short, on several lines, and no two alike."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable, Iterable, Sequence
from itertools import takewhile
from typing import Any

from rankscope.statistics.compared_features import TIMES
from rankscope.statistics.markup import MARKUP, escaped, plain_text, shortened

CHARACTER = 0.045
"""Inches that a character takes on average, at the size of a legend."""
TITLE_CHARACTER = 1.2 * CHARACTER
LEGEND_NAME = 40  # characters
BLANK, MORE = "\ue000", "\ue001"  # letters that no label has
WORD_AT_END = re.compile(r"[^-_/.\s]+$")


def legend_names(names: Iterable[object]) -> dict[Any, str]:
    """Text of every series in a legend: short, and no two of them read the same.

    Names of two runs are shortened on both sides of their sign. Where beginnings and ends do not
    tell all names apart, what they have in common is left out of them all.
    """
    named = {name: str(name).split(TIMES) for name in names}
    sides = [side for both in named.values() for side in both]
    found: dict[Any, str] = {}
    for way in (shortened, _without_common(sides), _whole):
        found = {
            name: escaped(TIMES.join(way(side, LEGEND_NAME // len(both)) for side in both))
            for name, both in named.items()
        }
        if len({*found.values()}) == len(found):
            break
    return found


def _without_common(names: Sequence[str]) -> Callable[[str, int], str]:
    """Shortens names by their common beginning and end, if there are several names."""
    different = [*{*names}] if len({*names}) > 1 else []
    start = WORD_AT_END.sub("", _common_start(different))
    backwards = [name[len(start) :][::-1] for name in different]
    end = WORD_AT_END.sub("", _common_start(backwards))

    def own(name: str, limit: int) -> str:
        middle = name[len(start) : len(name) - len(end)]
        return shortened("…" * bool(start) + middle + "…" * bool(end), limit)

    return own


def _common_start(names: Sequence[str]) -> str:
    alike = takewhile(lambda letters: len({*letters}) == 1, zip(*names, strict=False))
    return "".join(letters[0] for letters in alike)


def _whole(name: str, _limit: int) -> str:
    return shortened(name, 1000)


def name_title(name: object, inches: float, *, lines: int = 3) -> str:
    """Name of a run as a title of at most this size, broken after its punctuation."""
    limit = _characters(inches)
    text = shortened(name, limit * lines - lines)
    rows = [""]
    for part in re.findall(r"[^-_/.\s]*[-_/.\s]?", text):
        if len(rows[-1]) + len(part) > limit and rows[-1]:
            rows.append("")
        rows[-1] += part
    if len(rows) > lines or max(map(len, rows)) > limit:
        rows = [text[at : at + limit] for at in range(0, len(text), limit)]
    return "\n".join(map(escaped, rows))


def name_titles(names: Sequence[object], inches: float, *, lines: int = 3) -> list[str]:
    """Titles of runs side by side, as of `name_title`.

    Where two would read the same, what all names have in common is left out.
    """
    titles = [name_title(name, inches, lines=lines) for name in names]
    if len({*titles}) == len(titles):
        return titles
    texts = [str(name) for name in names]
    own = _without_common(texts)
    return [name_title(own(text, 1000), inches, lines=lines) for text in texts]


def wrapped(label: str, inches: float) -> str:
    """A label over as many lines as it takes to be at most ``inches`` long; formulas stay whole."""
    formulas = [found for found in MARKUP.findall(label) if found != r"\$"]
    shown = MARKUP.sub(lambda found: found[0] if found[0] == r"\$" else _blank(found[0]), label)
    # A pair such as (m, n) stays together.
    shown = shown.replace(", ", ",\xa0")
    lines = textwrap.wrap(shown, _characters(inches), break_long_words=False)
    text = "\n".join(lines).replace("\xa0", " ")
    return re.sub(f"{BLANK}{MORE}*", lambda _: formulas.pop(0), text)


def _blank(formula: str) -> str:
    """A word that is as long as a formula."""
    return BLANK + MORE * (len(plain_text(formula)) - 1)


def _characters(inches: float) -> int:
    return max(6, int(inches / TITLE_CHARACTER))
