"""What commands print: tables on stdout, what was skipped on stderr."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from rankscope.cli.command import in_options
from rankscope.cli.exit_codes import NOTHING_DONE, PARTIAL
from rankscope.errors import RankscopeError, printable
from rankscope.results.record import read_record

if TYPE_CHECKING:
    from rankscope.checkpoints.contents import Skip
    from rankscope.pipeline.calls import CallResult

MOST = 20  # lines
SHOWN = ("weight", "update", "merged_total")  # others if they were requested by name
FEW_DOCUMENTS = 50  # with fewer, 95 % intervals over documents hold the truth less often
EVALUATED = {  # printed metric → its column heading
    "loss": "loss (nats/token)",
    "perplexity": "perplexity",
    "bits_per_byte": "bits/byte",
    "mean_document_perplexity": "mean per-document perplexity",
    "macro_perplexity": "macro perplexity",
    "accuracy": "accuracy",
    "ties": "ties",
}
PER_IN_WORDS = "PER: proportional effective rank, the share of its dimensions that a matrix uses"
KAPPA = "κ: condition number, the largest over the smallest singular value"
KAPPA_R = "κ over rank: the same over the smallest singular value that is not zero or noise"
TRUST = "docs/numerics.md: how far to trust these numbers, and which to choose"


def print_summary(record: dict[str, Any], *, named: Collection[str]) -> None:
    """Print on stdout the summary in ``analysis.json``: one table per component.

    The tables are of weights, updates and sums of merges; for runs without weights, such as
    adapters alone, of all that was measured; and of components ``named`` by the user.
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
    ordered = sorted(shown, key=lambda kind: (*SHOWN, kind[0]).index(kind[0]))
    for component, window in ordered:
        lines = [line for line in kept if _kind(line) == (component, window)]
        unit = " or ".join(dict.fromkeys(units[line["run"]] for line in lines))
        ends = "" if all(a == b for a, b in (line["steps"] for line in lines)) else "first → last "
        span = "" if component == "merge" else WINDOWS[window]  # a merge is always of a cycle
        title = f"{component.replace('_', ' ')}{span}: {ends}{unit}"
        typer.echo(typer.style(title, bold=True))
        print_columns(_summary_rows(component, lines, unit), left=2)
    if ordered:
        has_weights = any(component == "weight" for component, _ in ordered)
        has_others = any(component != "weight" for component, _ in ordered)
        for meaning in (PER_IN_WORDS, KAPPA * has_weights, KAPPA_R * has_others):
            if meaning:
                typer.echo(typer.style(meaning, dim=True))
    for finding in summary["findings"]:
        typer.echo(f"• {plain(finding)}")
    if ordered:
        typer.echo(typer.style(TRUST, dim=True))


def _kind(line: dict[str, Any]) -> tuple[str, str]:
    """Component of a line, and its kind of window."""
    return line["component"], line.get("window", "")


def _summary_rows(component: str, lines: list[dict[str, Any]], unit: str) -> list[tuple[str, ...]]:
    """Cells of a table, its heading first; a single number where a run has only one step."""
    symbol = "κ" if component == "weight" else "κ over rank"
    ranks = ("PER", "effective rank", "rank", "max. rank")
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
    """Print cells in columns; the first ``left`` columns flush left, the others flush right."""
    rows = [tuple(map(plain, row)) for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = [
            cell.ljust(width) if i < left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        typer.echo(f"{indent}{'  '.join(cells)}".rstrip())


def plain(text: str) -> str:
    """Return the text safe for a terminal: names in files may hold control sequences."""
    return printable(text, limit=len(text) * 10)


def print_evaluations(evaluations: list[dict[str, Any]]) -> None:
    """Print on stdout what ``evaluation.json`` says of some runs and tasks: one table per task."""
    for task in dict.fromkeys(one["task"] for one in evaluations):
        found = [one for one in evaluations if one["task"] == task]
        title = f"{task}: first → last step (± half the width of the 95 % interval)"
        typer.echo(typer.style(title, bold=True))
        names = [name for name in EVALUATED if name in found[0]["last"]]
        unit = "pairs" if "accuracy" in names else "tokens"
        titles = (EVALUATED[name] for name in names)
        rows: list[tuple[str, ...]] = [("run", "steps", *titles, f"{unit}/s")]
        for one in sorted(found, key=lambda one: str(one["run"])):
            values = (_measured(one, name) for name in names)
            speed = _number(one[f"{unit}_per_second"], ",.0f")
            rows.append((one["run"], str(len(one["steps"])), *values, speed))
        print_columns(rows, left=1)
        _print_nominal(found)


def _print_nominal(evaluations: list[dict[str, Any]]) -> None:
    """Say that intervals over few documents are nominal, if any are."""
    counts = [one["last"]["perplexity"]["n"] for one in evaluations if "perplexity" in one["last"]]
    if counts and 1 < min(counts) < FEW_DOCUMENTS:
        message = (
            f"{min(counts)} documents: over fewer than {FEW_DOCUMENTS}, intervals are nominal and "
            "hold the truth less often than stated"
        )
        typer.echo(typer.style(message, dim=True))


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
    """A number in a few digits; a record has the word ``inf`` for an infinite one."""
    if value is None:
        return "–"
    if isinstance(value, str):
        return value
    return f"{value:.1e}" if value >= 1e4 else f"{value:{form}}"


def print_skips(skips: Sequence[Skip], *, file: str | Path | None = None) -> None:
    """List what was skipped, or if it is too much, name the file that does."""
    lines = in_brief(skips)
    for line in lines[:MOST]:
        typer.echo(f"skipped: {in_options(line)}", err=True)
    if len(lines) > MOST:
        where = "" if file is None else f", all in {file}"
        typer.echo(f"… and {len(lines) - MOST} more kinds{where}", err=True)


def print_notes(notes: Sequence[Skip]) -> None:
    """Print remarks where nothing is missing."""
    lines = in_brief(notes)
    for line in lines[:MOST]:
        typer.echo(f"note: {in_options(line)}", err=True)
    if len(lines) > MOST:
        typer.echo(f"… and {len(lines) - MOST} more kinds of notes", err=True)


def in_brief(skips: Sequence[Skip]) -> list[str]:
    """One line each; if there are many, one per reason and message, with a count."""
    if len(skips) <= MOST:
        return [str(skip) for skip in skips]
    kinds: dict[tuple[str, str], list[Skip]] = {}
    for skip in skips:
        kinds.setdefault((skip.reason, skip.message), []).append(skip)
    return [
        str(alike[0]) + (f" (and {len(alike) - 1} more like it)" if len(alike) > 1 else "")
        for alike in kinds.values()
    ]


def end_call(
    found: CallResult,
    *,
    record: Path,
    skips: Path,
    print_record: Callable[[dict[str, Any]], None] | None,
    nothing: str,
    strict: bool,
) -> None:
    """Print the result of a call, and exit with its code if something is missing.

    Parameters
    ----------
    record, skips
        Files that the call wrote.
    print_record
        Prints what the record holds; None to print the record itself as JSON.
    nothing
        The error where nothing was measured.

    Raises
    ------
    RankscopeError
        If nothing was measured.
    """
    if found.measured:
        content = read_record(record)
        if print_record is None:
            typer.echo(json.dumps(content, indent=2))
        else:
            print_record(content)
    print_notes([*found.mended, *found.notes])
    print_skips(found.skips, file=skips)
    if not found.measured:
        raise RankscopeError(nothing)
    if found.skips:
        raise typer.Exit(NOTHING_DONE if strict else PARTIAL)
