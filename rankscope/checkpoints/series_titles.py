"""Titles of the series in one folder, so that every run has a different name."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from rankscope.checkpoints.name_words import COUNTING, PLAIN


def titles_of(words: Sequence[Sequence[str]], names: Sequence[Sequence[str]]) -> list[str]:
    """A title for each series: the words, or the path below its steps, that the others lack.

    A series without any has an empty title: its run is called as its folder is.

    Parameters
    ----------
    words
        What the names of each series have in common, see `Counted`.
    names
        The names of the checkpoints of each series.

    Examples
    --------
    >>> titles_of([("ckpt", "#step"), ("ckpt", "#step", "ema")], [["ckpt_5"], ["ckpt_5_ema"]])
    ['', 'ema']
    """
    distinct = [_distinct(one) for one in words]
    shared = set.intersection(*map(set, distinct)) if distinct else set()
    below = _without_shared_ends([_below(one) for one in names])
    titles = [""] * len(words)
    used: set[str] = set()
    for i in sorted(range(len(words)), key=lambda i: (-len(names[i]), i)):
        own = (_as_written(word, names[i][0]) for word in distinct[i] if word not in shared)
        title = below[i] if len(set(below)) > 1 and below[i] else "-".join(own)
        if title in used:  # the larger series has it
            label = "-".join(word for word in words[i] if word[0] not in "#/")
            title = f"{title}/{label}" if title else label
        while title in used:
            title += "'"
        titles[i] = title
        used.add(title)
    return titles


def _as_written(word: str, name: str) -> str:
    """A word in the case in which a name has it."""
    start = name.lower().find(word)
    return word if start < 0 else name[start : start + len(word)]


def natural(text: str) -> list[tuple[str, int]]:
    """Key that sorts the numbers in names as numbers; the empty name comes first."""
    return [(word, int(digits or 0)) for word, digits in re.findall(r"(\D*)(\d*)", text)]


def _distinct(words: Iterable[str]) -> list[str]:
    """Words that not every training uses, each with the number that belongs to it."""
    found: list[str] = []
    for word in words:
        if word[0].isdigit() and found:
            found[-1] += word
        elif word[0] not in "#/":
            found.append(word)
    return [word for word in found if word not in PLAIN and word not in COUNTING]


def _below(names: Iterable[str]) -> str:
    """Path below the folders of the steps, if it is the same in all."""
    paths = {name.partition("/")[2] for name in names}
    return paths.pop() if len(paths) == 1 else ""


def _without_shared_ends(paths: list[str]) -> list[str]:
    """The paths without the last parts that all of them share."""
    parts = [path.split("/") for path in paths]
    while parts and all(len(one) > 1 and one[-1] == parts[0][-1] for one in parts):
        parts = [one[:-1] for one in parts]
    return ["/".join(one) for one in parts]
