"""Everything that is tried against bad files, kills and losses of power, as one table.

``python -m tests.reliability`` tries all of it at full size and prints the table in Markdown;
``--quick`` tries a little of each, ``--write`` also puts the table into the README.
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path

from tests.documents import ROOT
from tests.reliability.row import Row
from tests.reliability.sections import SECTIONS

START, END = "<!-- reliability: begin -->", "<!-- reliability: end -->"
MOST = 3  # shortcomings that the table names


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="try a little of everything")
    parser.add_argument("--write", action="store_true", help="put the table into the README")
    asked = parser.parse_args()
    rows = list(tried(is_full=not asked.quick))
    table = "\n".join(markdown(rows))
    print(table)
    if asked.write:
        readme = ROOT / "README.md"
        readme.write_text(with_table(readme.read_text(encoding="utf-8"), table), encoding="utf-8")
    raise SystemExit(any(row.short for row in rows))


def tried(*, is_full: bool) -> Iterator[Row]:
    """The rows of all sections."""
    for section in SECTIONS:
        with tempfile.TemporaryDirectory() as scratch:
            yield from section(Path(scratch), is_full)


def markdown(rows: Iterable[Row]) -> Iterator[str]:
    """The lines of the table, headed by the date and the commit."""
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    yield f"Tried on {datetime.now(UTC):%Y-%m-%d} at commit {commit}:\n"
    yield "| what | tried | fell short | |"
    yield "|---|---|---|---|"
    for row in rows:
        named = "; ".join(row.short[:MOST]) + ("; …" if len(row.short) > MOST else "")
        short = f"{len(row.short)}: {named}" if row.short else "0"
        yield f"| {row.what} | {row.tried:,} {row.unit} | {short} | {row.remark} |"


def with_table(page: str, table: str) -> str:
    """A page whose part between the two marks is the table."""
    before, start, rest = page.partition(START)
    _, end, after = rest.partition(END)
    if not start or not end:
        raise SystemExit(f"the page has no lines {START} and {END}")
    return f"{before}{START}\n\n{table}\n\n{END}{after}"


if __name__ == "__main__":
    main()
