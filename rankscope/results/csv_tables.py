"""Tables as CSV, which are safe to open in a spreadsheet.

A spreadsheet runs a cell that begins with ``=``, ``+``, ``-`` or ``@`` as a formula, and a name in
somebody's checkpoint may be one. Such text, and text that begins with a tab or a carriage return,
is written after an apostrophe, which spreadsheets hide; so is text that already has the apostrophe,
so that `original` gives back every text. Numbers are written as they are. Parquet holds the names
themselves.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

FORMULA = re.compile(r"'*[=+\-@\t\r]")
QUOTED = re.compile(r"'(?='*[=+\-@\t\r])")


def as_csv(
    records: Iterable[Mapping[Any, Any]], columns: Sequence[str], *, heading: bool = True
) -> bytes:
    """Records as CSV in UTF-8, below the names of the columns; a missing value is an empty cell.

    Half characters, which UTF-8 cannot hold, are written as escapes.

    Examples
    --------
    >>> print(as_csv([{"name": "=1+1", "s": -2.5}], ["name", "s"]).decode())
    name,s
    '=1+1,-2.5
    <BLANKLINE>
    """
    rows = (map(one.get, columns) for one in records)
    return in_utf8(csv_lines([columns, *rows] if heading else rows))


def csv_lines(rows: Iterable[Iterable[Any]]) -> list[str]:
    """Rows of cells as lines of CSV, without their ends.

    Each cell is written whatever the others are: lines of several cells can be joined by commas.
    """
    lines = _Lines()
    writer = csv.writer(lines, lineterminator=_Lines.END)
    writer.writerows([quoted(c) if isinstance(c, str) else c for c in row] for row in rows)
    return lines.lines


def in_utf8(lines: Iterable[str]) -> bytes:
    """Lines of CSV as they are in a file."""
    return "".join([f"{line}\n" for line in lines]).encode("utf-8", "backslashreplace")


def frame_as_csv(table: pd.DataFrame) -> bytes:
    """A data frame as CSV, as `as_csv` writes it."""
    plain = table.astype(object).where(table.notna(), None)
    return as_csv(plain.to_dict("records"), [str(name) for name in plain])


def quoted(cell: Any) -> Any:
    """A cell as it is written: text that looks like a formula after an apostrophe."""
    return f"'{cell}" if isinstance(cell, str) and FORMULA.match(cell) else cell


def original(cell: Any) -> Any:
    """The cell before `quoted` changed it.

    Examples
    --------
    >>> [original(quoted(name)) for name in ("=1+1", "'=1+1", "'q", "q")]
    ['=1+1', "'=1+1", "'q", 'q']
    """
    return QUOTED.sub("", cell, count=1) if isinstance(cell, str) and QUOTED.match(cell) else cell


class _Lines:
    r"""Collects lines, ended by ``\n``.

    The writer quotes cells with the characters of its line end, which must include ``\r``: readers
    take one for the end of a line.
    """

    END = "\r\n"

    def __init__(self) -> None:
        self.lines: list[str] = []

    def write(self, line: str) -> None:
        self.lines.append(line.removesuffix(self.END))
