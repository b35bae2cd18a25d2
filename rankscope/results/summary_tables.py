"""The summary of an analysis as tables of text, from its record: for terminals and notebooks."""

from __future__ import annotations

import html
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rankscope.errors import plain

Row = tuple[str, ...]
Lines = list[dict[str, Any]]

MAIN = ("weight", "update", "merged_total")  # by role; others so only if requested by name
MOST_LINES = 50  # by role: of more, which are of many runs, only weights have them
WINDOWS = {
    "": "",
    "within": " within a cycle",
    "cycle": " of a cycle",
    "across": " across restarts",
}
SPAN = "first → last {}: the values of the first and the last {} that have any"
PER = "PER: proportional effective rank, the share of its dimensions that a matrix uses"
RANK = (
    "rank: singular values that are certainly not zero or noise; max. rank: the most there can be"
)
KAPPA = "κ: condition number, the largest over the smallest singular value"
KAPPA_R = "κ over rank: the largest over the smallest singular value within the rank"
TRUST = "docs/numerics.md: how far to trust these numbers, and which to choose"


@dataclass(frozen=True)
class SummaryTable:
    """One table: its title, and rows of cells, the heading first; ``left`` columns flush left."""

    title: str
    rows: list[Row]
    left: int = 2


def summary_tables(
    record: Mapping[str, Any], *, named: Collection[str] = ()
) -> tuple[list[SummaryTable], list[str]]:
    """The tables of ``analysis.json``, and a legend: a line for every term in them.

    Weights, updates and sums of merges have a table by role each; so has every component ``named``
    by the user, and every one of a run without weights, such as adapters alone. All others share
    one table, with all roles of a run in one row. So do updates and sums of merges where that makes
    more than `MOST_LINES`.
    """
    summary = record["summary"]
    units = {run["name"]: run["unit"] for run in record["runs"]}
    whole = {line["run"] for line in summary["lines"] if line["component"] == "weight"}

    are_many = sum(line["component"] in MAIN for line in summary["lines"]) > MOST_LINES
    main = MAIN[:1] if are_many and "overall" in summary else MAIN

    def is_by_role(line: Mapping[str, Any]) -> bool:
        return line["run"] not in whole or line["component"] in (*main, *named)

    lines: Lines = [line for line in summary["lines"] if is_by_role(line)]
    rest: Lines = [line for line in summary.get("overall", ()) if not is_by_role(line)]
    kinds = sorted(
        dict.fromkeys(map(_kind, lines)), key=lambda kind: (*MAIN, kind[0]).index(kind[0])
    )
    tables = []
    for kind in kinds:
        own = [line for line in lines if _kind(line) == kind]
        tables.append(_table(component_text(*kind), own, _unit(own, units)))
    if rest:
        tables.append(_table("other components, all roles together", rest, _unit(rest, units)))
    return tables, list(_legend([*lines, *rest], units))


def summary_text(record: Mapping[str, Any]) -> str:
    """The summary as lines of text: tables, legend and findings."""
    tables, legend = summary_tables(record)
    parts = [line for table in tables for line in (table.title, *aligned(table.rows, table.left))]
    findings = (f"• {plain(finding)}" for finding in record["summary"]["findings"])
    return "\n".join([*parts, *legend, *findings])


def summary_html(record: Mapping[str, Any]) -> str:
    """The summary for a notebook."""
    tables, legend = summary_tables(record)
    parts = []
    for table in tables:
        head, *rows = [
            "".join(f"<{cell}>{html.escape(plain(text))}</{cell}>" for text in row)
            for row, cell in zip(table.rows, ["th", *["td"] * len(table.rows)], strict=False)
        ]
        body = "".join(f"<tr>{row}</tr>" for row in rows)
        title = f"<caption>{html.escape(table.title)}</caption>"
        parts.append(f"<table>{title}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>")
    findings = (f"<li>{html.escape(plain(one))}</li>" for one in record["summary"]["findings"])
    terms = "<br>".join(map(html.escape, legend))
    return f"{''.join(parts)}<p><small>{terms}</small></p><ul>{''.join(findings)}</ul>"


def component_text(component: str, window: str = "") -> str:
    """A component in words, with its kind of window."""
    span = "" if component == "merge" else WINDOWS[window]  # a merge is always of a cycle
    return f"{component.replace('_', ' ')}{span}"


def aligned(rows: Sequence[Row], left: int, *, indent: str = "") -> list[str]:
    """Cells in columns: the first ``left`` columns flush left, the others flush right."""
    rows = [tuple(map(plain, row)) for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = [
            cell.ljust(width) if i < left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append(f"{indent}{'  '.join(cells)}".rstrip())
    return lines


def number_text(value: float | str | None, form: str) -> str:
    """A number in a few digits; a record has the word ``inf`` for an infinite one."""
    if value is None:
        return "–"
    if isinstance(value, str):
        return value
    return f"{value:.1e}" if value >= 1e4 else f"{value:{form}}"


def _kind(line: Mapping[str, Any]) -> tuple[str, str]:
    """Component of a line, and its kind of window."""
    return line["component"], line.get("window", "")


def _unit(lines: Lines, units: Mapping[str, str]) -> str:
    return " or ".join(dict.fromkeys(units[line["run"]] for line in lines))


def _is_one(line: Mapping[str, Any]) -> bool:
    """Whether there is only one step, so that a single number stands for first and last."""
    return bool(line["steps"][0] == line["steps"][1])


def _table(title: str, lines: Lines, unit: str) -> SummaryTable:
    span = unit if all(map(_is_one, lines)) else f"first → last {unit}"
    by_role = all(line["role"] for line in lines)
    kappa = "κ" if all(line["component"] == "weight" for line in lines) else "κ over rank"
    ranks = ("PER", "effective rank", "rank", "max. rank")
    rows: list[Row] = [("run", "role" if by_role else "component", unit, "matrices", *ranks, kappa)]
    for line in sorted(lines, key=lambda line: str(line["run"])):
        what = line["role"] or component_text(*_kind(line))
        rows.append((line["run"], what, *_values(line)))
    return SummaryTable(f"{title}: {span}", rows)


def _values(line: Mapping[str, Any]) -> Iterator[str]:
    conditions = zip(line["condition"], line["is_bound"], strict=True)
    cells = (
        [str(step) for step in line["steps"]],
        [str(line["matrices"])],
        [f"{per:.3f}" for per in line["per"]],
        [f"{rank:.4g}" for rank in line["effective_rank"]],
        [number_text(rank, ".0f") for rank in line["rank"]],
        [number_text(line["max_rank"], ".0f")],
        [("≥" if at_least else "") + number_text(x, ".3g") for x, at_least in conditions],
    )
    for cell in cells:
        yield " → ".join(cell[-1:] if _is_one(line) else cell)


def _legend(lines: Lines, units: Mapping[str, str]) -> Iterator[str]:
    if not lines:
        return
    if not all(map(_is_one, lines)):
        unit = _unit(lines, units)
        yield SPAN.format(unit, unit)
    yield PER
    yield RANK
    if any(line["component"] == "weight" for line in lines):
        yield KAPPA
    if any(line["component"] != "weight" for line in lines):
        yield KAPPA_R
