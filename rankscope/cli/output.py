"""What commands print: tables on stdout, what was skipped on stderr."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from rankscope.cli.command import in_options
from rankscope.cli.exit_codes import NOTHING_DONE, PARTIAL
from rankscope.errors import printable

if TYPE_CHECKING:
    from rankscope.checkpoints.contents import Skip

MOST = 20  # lines
SHOWN = ("weight", "update", "merged_total")  # and others where they were asked for, or all is
EVALUATED = {  # of what evaluations print, what it is called
    "loss": "nats/token",
    "perplexity": "perplexity",
    "bits_per_byte": "bits/byte",
    "mean_document_perplexity": "mean of documents",
    "macro_perplexity": "macro",
    "accuracy": "accuracy",
    "ties": "ties",
}


def print_summary(record: dict[str, Any], *, named: Collection[str]) -> None:
    """Print the summary that ``analysis.json`` holds on stdout: a table a component.

    Those are weights, updates and sums of merges; of runs without weights, such as adapters without
    their model, all that was measured; and those ``named`` by the user.
    """
    from rankscope.analysis.summary import WINDOWS

    summary = record["summary"]
    whole = {line["run"] for line in summary["lines"] if line["component"] == "weight"}
    kept = [
        line
        for line in summary["lines"]
        if line["run"] not in whole or line["component"] in (*SHOWN, *named)
    ]
    shown = dict.fromkeys(map(_kind, kept))
    units = {run["name"]: run["unit"] for run in record["runs"]}
    ordered = sorted(shown, key=lambda one: SHOWN.index(one[0]) if one[0] in SHOWN else len(SHOWN))
    for component, window in ordered:
        lines = [line for line in kept if _kind(line) == (component, window)]
        unit = " or ".join(dict.fromkeys(units[line["run"]] for line in lines))
        ends = "" if all(a == b for a, b in (line["steps"] for line in lines)) else "first → last "
        span = "" if component == "merge" else WINDOWS[window]  # which is of a cycle, always
        title = f"{component.replace('_', ' ')}{span}: {ends}{unit}"
        typer.echo(typer.style(title, bold=True))
        print_columns(_summary_rows(component, lines, unit), left=2)
    for finding in summary["findings"]:
        typer.echo(f"• {plain(finding)}")


def _kind(line: dict[str, Any]) -> tuple[str, str]:
    """What a line is of: a component, and over which kind of window."""
    return line["component"], line.get("window", "")


def _summary_rows(component: str, lines: list[dict[str, Any]], unit: str) -> list[tuple[str, ...]]:
    """Cells of a table, its heading first; one number where a run has but one step."""
    symbol = "κ" if component == "weight" else "κ_r"
    ranks = ("PER", "effective rank", "rank", "of")
    rows: list[tuple[str, ...]] = [("run", "role", unit, "matrices", *ranks, symbol)]
    for line in sorted(lines, key=lambda line: str(line["run"])):
        conditions = zip(line["condition"], line["is_bound"], strict=True)
        cells = (
            [str(step) for step in line["steps"]],
            [str(line["matrices"])],
            [f"{per:.3f}" for per in line["per"]],
            [f"{rank:.4g}" for rank in line["effective_rank"]],
            [_number(rank, ".0f") for rank in line["rank"]],
            [_number(line["max_rank"], ".0f")],
            [("≥" if at_least else "") + _number(x, ".3g") for x, at_least in conditions],
        )
        is_one = line["steps"][0] == line["steps"][1]
        values = (" → ".join(cell[-1:] if is_one else cell) for cell in cells)
        rows.append((line["run"], line["role"], *values))
    return rows


def print_columns(rows: list[tuple[str, ...]], *, left: int, indent: str = "") -> None:
    """Print cells below each other; the first ``left`` columns flush left, the others right."""
    rows = [tuple(map(plain, row)) for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = [
            cell.ljust(width) if i < left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        typer.echo(f"{indent}{'  '.join(cells)}".rstrip())


def plain(text: str) -> str:
    """Return the text as a terminal may have it: names in files may hold what it would obey."""
    return printable(text, limit=len(text) * 10)


def print_evaluations(evaluations: list[dict[str, Any]]) -> None:
    """Print what ``evaluation.json`` says of some runs and tasks on stdout, a table a task."""
    for task in dict.fromkeys(one["task"] for one in evaluations):
        found = [one for one in evaluations if one["task"] == task]
        typer.echo(typer.style(f"{task}: first → last step, ± half of 95 %", bold=True))
        names = [name for name in EVALUATED if name in found[0]["last"]]
        unit = "pairs" if "accuracy" in names else "tokens"
        titles = (EVALUATED[name] for name in names)
        rows: list[tuple[str, ...]] = [("run", "steps", *titles, f"{unit}/s")]
        for one in sorted(found, key=lambda one: str(one["run"])):
            values = (_measured(one, name) for name in names)
            speed = _number(one[f"{unit}_per_second"], ",.0f")
            rows.append((one["run"], str(len(one["steps"])), *values, speed))
        print_columns(rows, left=1)


def _measured(one: dict[str, Any], name: str) -> str:
    """First and last value of a measure, the last with its interval."""
    first, last = one["first"].get(name, {}), one["last"].get(name, {})
    form = ".0f" if name == "ties" else ".4g"
    values = [_number(at.get("value"), form) for at in (first, last)]
    if len(one["steps"]) == 1:
        values = values[1:]
    if last.get("ci_low") is None:
        return " → ".join(values)
    return f"{' → '.join(values)} ± {(last['ci_high'] - last['ci_low']) / 2:.2g}"


def _number(value: float | str | None, form: str) -> str:
    """A number in few digits; a record has the word ``inf`` for an infinite one."""
    if value is None:
        return "–"
    if isinstance(value, str):
        return value
    return f"{value:.1e}" if value >= 1e4 else f"{value:{form}}"


def tell_skips(skips: Sequence[Skip], *, file: str | Path | None = None) -> None:
    """Name what was skipped, and the file that lists all where that is too much."""
    lines = in_brief(skips)
    for line in lines[:MOST]:
        typer.echo(f"skipped: {in_options(line)}", err=True)
    if len(lines) > MOST:
        where = "" if file is None else f", all in {file}"
        typer.echo(f"… and {len(lines) - MOST} kinds more{where}", err=True)


def tell_notes(notes: Sequence[Skip]) -> None:
    """Say what is worth a line although nothing is missing."""
    lines = in_brief(notes)
    for line in lines[:MOST]:
        typer.echo(f"note: {in_options(line)}", err=True)
    if len(lines) > MOST:
        typer.echo(f"… and {len(lines) - MOST} kinds of notes more", err=True)


def in_brief(skips: Sequence[Skip]) -> list[str]:
    """A line for each; of many, one for those of the same reason and words, with their number."""
    if len(skips) <= MOST:
        return [str(skip) for skip in skips]
    kinds: dict[tuple[str, str], list[Skip]] = {}
    for skip in skips:
        kinds.setdefault((skip.reason, skip.message), []).append(skip)
    return [
        str(alike[0]) + (f" (and {len(alike) - 1} more alike)" if len(alike) > 1 else "")
        for alike in kinds.values()
    ]


def end_with_skips(skips: Sequence[Skip], *, strict: bool) -> None:
    """Leave with the exit code of results that lack something, if they do."""
    if skips:
        raise typer.Exit(NOTHING_DONE if strict else PARTIAL)
