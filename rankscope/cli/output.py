"""What commands print: tables on stdout, what was skipped on stderr."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from rankscope.cli.command import in_options
from rankscope.cli.exit_codes import NOTHING_DONE, PARTIAL
from rankscope.errors import RankscopeError, plain
from rankscope.results.record import read_record
from rankscope.results.summary_tables import TRUST, aligned, number_text, summary_tables

if TYPE_CHECKING:
    from rankscope.analysis.analyze_shard import ShardResult
    from rankscope.checkpoints.skip import Skip
    from rankscope.pipeline.call_results import CallResult
    from rankscope.pipeline.curves import Curve
    from rankscope.pipeline.recall import CurvePlace

MOST = 20  # lines
FEW_DOCUMENTS = 50  # with fewer, 95 % intervals over documents hold the truth less often
RANKME = (
    "RankMe: effective rank of the features' singular values, uncentred; Gaussian: of as many "
    "vectors of random numbers. Intervals and all places: representations.csv"
)
ENERGY_SHARES = ("share", "share_chance", "share_best")
HELD = (
    "held: share of the features' energy, as a mean over matrices; chance: for as many random "
    "directions; most: for the best ones. Intervals and every matrix: input_energies.csv"
)
EVALUATED = {  # printed metric → its column heading
    "loss": "loss (nats/token)",
    "perplexity": "perplexity",
    "bits_per_byte": "bits/byte",
    "mean_document_perplexity": "mean per-document perplexity",
    "macro_perplexity": "macro perplexity",
    "accuracy": "accuracy",
    "ties": "ties",
}


def print_summary(record: dict[str, Any], *, named: Collection[str]) -> None:
    """Print on stdout the summary in ``analysis.json``: tables, a legend, and findings.

    Components ``named`` by the user have a table by role.
    """
    tables, legend = summary_tables(record, named=named)
    for table in tables:
        typer.echo(typer.style(table.title, bold=True))
        print_columns(table.rows, left=table.left)
    for meaning in legend:
        typer.echo(typer.style(meaning, dim=True))
    for finding in record["summary"]["findings"]:
        typer.echo(f"• {plain(finding)}")
    if tables:
        typer.echo(typer.style(TRUST, dim=True))


def print_columns(rows: list[tuple[str, ...]], *, left: int, indent: str = "") -> None:
    """Print cells in columns; the first ``left`` columns flush left, the others flush right."""
    for line in aligned(rows, left, indent=indent):
        typer.echo(line)


def print_evaluations(evaluations: list[dict[str, Any]]) -> None:
    """Print on stdout entries of ``evaluation.json``: one table per task."""
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
            speed = number_text(one[f"{unit}_per_second"], ",.0f")
            rows.append((one["run"], str(len(one["steps"])), *values, speed))
        print_columns(rows, left=1)
        _print_nominal(found)


def print_representations(listed: list[dict[str, Any]]) -> None:
    """Print on stdout what ``representations.json`` says: one table per text and kind of place."""
    representations = [one for one in listed if "at" in one["last"]]
    kinds = [
        (one["task"], one["settings"]["features"], one["last"]["at"]) for one in representations
    ]
    for kind in dict.fromkeys(kinds):
        found = [one for one, its in zip(representations, kinds, strict=True) if its == kind]
        text, features, at = kind
        title = f"{text}, {features} tokens, last {at}: first → last step"
        typer.echo(typer.style(title, bold=True))
        rows: list[tuple[str, ...]] = [
            ("run", "steps", "tokens", "RankMe", "of", "Gaussian", "mean cosine", "α-ReQ")
        ]
        for one in sorted(found, key=lambda one: str(one["run"])):
            last = one["last"]
            rows.append(
                (
                    one["run"],
                    str(len(one["steps"])),
                    str(one["probe"]["tokens"]),
                    _change(one, "rankme", ".4g"),
                    str(last["dimensions"]),
                    number_text(last["rankme_gaussian"], ".4g"),
                    _change(one, "mean_cosine", ".2f"),
                    _change(one, "alpha_req", ".2f"),
                )
            )
        print_columns(rows, left=1)
    if representations:
        typer.echo(typer.style(RANKME, dim=True))
    _print_energies([one for one in listed if "at" not in one["last"]])


def _print_energies(listed: list[dict[str, Any]]) -> None:
    """Print the share of inputs' energy in the weights' leading directions, at the last step."""
    if not listed:
        return
    title = "energy of the weights' inputs, minus the mean, in their leading directions: last step"
    typer.echo(typer.style(title, bold=True))
    rows: list[tuple[str, ...]] = [
        ("run", "text", "matrices", "share of their energy", "number", "held", "chance", "most")
    ]
    for one in sorted(listed, key=lambda one: str(one["run"])):
        for kind, found in one["last"].items():
            component, _, share = kind.partition(" ")
            numbers = (found.get(f"energy_{name}_centred") for name in ENERGY_SHARES)
            shown = (number_text(number, ".2f") for number in numbers)
            rows.append((one["run"], one["task"], component, share, str(found["weights"]), *shown))
    print_columns(rows, left=3)
    typer.echo(typer.style(HELD, dim=True))


def of_curves(
    listed: Iterable[dict[str, Any]], curves: Iterable[Curve | CurvePlace]
) -> list[dict[str, Any]]:
    """The entries of a record for these curves: the settings of this call.

    Others of the same run and task stay in the record if nothing replaced them.
    """
    own = {(curve.path, curve.folder) for curve in curves}
    return [one for one in listed if (one["path"], one["folder"]) in own]


def _change(one: dict[str, Any], name: str, form: str) -> str:
    """First and last value of a number."""
    steps = (one["first"], one["last"]) if len(one["steps"]) > 1 else (one["last"],)
    return " → ".join(number_text(at[name], form) for at in steps)


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
    values = [number_text(at.get("value"), form) for at in (first, last)]
    if len(one["steps"]) == 1:
        values = values[1:]
    if last.get("ci_low") is None:
        return " → ".join(values)
    return f"{' → '.join(values)} ± {(last['ci_high'] - last['ci_low']) / 2:.2g}"


def print_skips(skips: Sequence[Skip], *, file: str | Path | None = None) -> None:
    """List what was skipped; if that is too much, name the file that lists the rest."""
    lines = in_brief(skips)
    for line in lines[:MOST]:
        typer.echo(f"skipped: {in_options(line)}", err=True)
    if len(lines) > MOST:
        where = "" if file is None else f", all in {plain(str(file))}"
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
    print_skips(found.skips, file=skips if found.measured else None)
    if not found.measured:
        raise RankscopeError(nothing)
    _exit_if_skipped(found, strict=strict)


def end_shard(found: ShardResult, *, out: Path, as_json: bool, strict: bool) -> None:
    """Print what a shard did and what is missing, and exit with its code if it skipped something.

    Raises
    ------
    RankscopeError
        If nothing of its share was measured.
    """
    own, every = found.tasks.get(found.shard.number, 0), sum(found.tasks.values())
    missing = sum(found.missing.values())
    if as_json:
        document = {
            "shard": found.shard.number,
            "shards": found.shard.count,
            "measured": found.measured,
            "computed": found.computed,
            "tasks": own,
            "tasks_of_all": every,
            "missing_of_all": missing,
            "missing_shards": sorted(found.missing),
            "skipped": [vars(skip) for skip in found.skips],
            "notes": [vars(note) for note in (*found.mended, *found.notes)],
        }
        typer.echo(json.dumps(document, indent=2))
    else:
        measured = f"{found.measured} measured, {found.computed} newly computed"
        typer.echo(f"shard {found.shard}: {measured} → {plain(str(out))}")
        if missing:
            shards = _in_brief(sorted(found.missing))
            noun = "shard" if len(found.missing) == 1 else "shards"
            typer.echo(f"still missing: {missing} of {every} tasks ({noun} {shards})")
        else:
            typer.echo("nothing is missing: the same command without --shard writes the table")
    print_notes([*found.mended, *found.notes])
    print_skips(found.skips)
    if own and not found.measured:
        raise RankscopeError(f"nothing of shard {found.shard} could be measured")
    _exit_if_skipped(found, strict=strict)


def _in_brief(numbers: Sequence[int]) -> str:
    """Numbers as text: 1, 4, 7, or the first of them and a count."""
    listed = ", ".join(map(str, numbers[:MOST]))
    return listed + (f" and {len(numbers) - MOST} more" if len(numbers) > MOST else "")


def _exit_if_skipped(found: CallResult, *, strict: bool) -> None:
    if found.skips:
        raise typer.Exit(NOTHING_DONE if strict else PARTIAL)
