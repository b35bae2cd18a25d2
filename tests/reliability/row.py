"""A line of the table of reliability: what was tried, how often, and what fell short."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Row:
    """One line.

    Attributes
    ----------
    what
        What was tried, in words.
    tried
        How often, in the ``unit``: inputs, mutants, kills, states.
    short
        What fell short, one text each.
    remark
        What else a reader should know, such as a seed.
    """

    what: str
    tried: int
    unit: str
    short: tuple[str, ...] = ()
    remark: str = ""


# Tries something in a scratch folder, at the full size or at that of a quick look.
Section = Callable[[Path, bool], Iterable[Row]]
