"""What ``inspect`` prints about runs, and about every folder and file that it found."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import typer

from rankscope.checkpoints.contents import Skip
from rankscope.checkpoints.run import listed
from rankscope.cli.output import in_brief, print_columns
from rankscope.errors import plain

MOST = 10  # lines of one kind; if there are more, the first, the last and a count are printed
ENDS = 3
CLASSES = {  # class of a tensor → singular and plural in words
    "matrix": ("matrix", "matrices"),
    "part of": ("part of a matrix", "parts of matrices"),
    "no linear map": ("not a linear map", "not linear maps"),
    "optimizer": ("of an optimizer", "of an optimizer"),
}
SOURCES = {"order": "order: nothing states a step"}  # where a step was read → words
USES = {"part": "part of a checkpoint", "left out": "left out", "unreadable": "not readable"}
Rows = list[tuple[str, ...]]


def print_run(run: dict[str, Any]) -> None:
    """Print on stdout a run as described by `rankscope.checkpoints.description`."""
    typer.echo(f"{typer.style(plain(run['run']), bold=True)}  {plain(run['path'])}")
    for name, value in _facts(run):
        typer.echo(f"  {name:<10} {plain(value)}")
    if run["described_step"] is not None:
        columns = ("role", "layers", "matrices", "shapes", "dtype")
        rows = [columns, *(tuple(str(line[key]) for key in columns) for line in run["matrices"])]
        print_columns(rows, left=len(columns), indent="  ")
    for name in run.get("unknown", [])[:MOST]:
        typer.echo(f"  {'unknown':<10} {plain(name)}")
    if len(run.get("unknown", ())) > MOST:
        typer.echo(f"  {'':<10} … and {len(run['unknown']) - MOST} more: see --json")
    print_columns(_steps(run), left=4, indent="  ")
    print_lines(run["notes"], run["skips"], indent="  ")
    typer.echo()


def print_lines(
    notes: Iterable[dict[str, Any]], skips: Iterable[dict[str, Any]], *, indent: str = ""
) -> None:
    """Print notes, and what an analysis would skip."""
    for word, found in (("note", notes), ("skipped", skips)):
        lines = in_brief([Skip(**one) for one in found])
        for line in lines[:MOST]:
            typer.echo(f"{indent}{word:<10} {line}")
        if len(lines) > MOST:
            typer.echo(f"{indent}{'':<10} … and {len(lines) - MOST} more kinds: see --json")


def print_places(places: Iterable[dict[str, Any]], root: Path) -> None:
    """Print what became of every folder and file that is not a step of a run."""
    for use, title in USES.items():
        found = [place for place in places if place["use"] == use]
        if not found:
            continue
        typer.echo(typer.style(title, bold=True))
        by_reason: dict[str, list[str]] = {}
        for place in found:
            by_reason.setdefault(_reason(place), []).append(_below(root, place["path"]))
        rows: Rows = []
        for reason, paths in by_reason.items():
            rows += [(path, reason) for path in _abridged(paths)]
        print_columns(rows, left=2, indent="  ")
        typer.echo()


def _reason(place: dict[str, Any]) -> str:
    if place["use"] != "part":
        return str(place["reason"])
    step = "" if place["step"] is None else f" at {place['step']}"
    return ": ".join(filter(None, (f"{place['run']}{step}", place["reason"])))


def _below(root: Path, path: str) -> str:
    real = Path(path)
    if real == root:
        return f"{root.resolve().name} itself"
    return real.relative_to(root).as_posix() if real.is_relative_to(root) else path


def _abridged(paths: list[str]) -> list[str]:
    """The paths; if many, only the first, the last, and a count of the others."""
    if len(paths) <= MOST:
        return paths
    return [*paths[:ENDS], f"… {len(paths) - 2 * ENDS} more", *paths[-ENDS:]]


def _steps(run: dict[str, Any]) -> Rows:
    """Which step is which folder or file; if many, only the first, the last and damaged ones."""
    steps, damaged = run["steps"], run.get("unreadable_steps", ())
    has_tokens = any(step["tokens"] is not None for step in steps)
    rows: Rows = [(run["unit"], "tokens" if has_tokens else "", "from", "path")]
    left_out = 0
    for number, step in enumerate(steps):
        is_end = not ENDS <= number < len(steps) - ENDS
        if len(steps) > MOST and not is_end and step["step"] not in damaged:
            left_out += 1
            continue
        if left_out:
            rows.append(("…", "", "", f"{left_out} more"))
            left_out = 0
        tokens = "" if step["tokens"] is None else f"{step['tokens']:.4g}"
        source = SOURCES.get(step["step_source"], step["step_source"])
        mark = "  (cannot be read)" if step["step"] in damaged else ""
        rows.append((str(step["step"]), tokens, source, step["below"] + mark))
    return rows if has_tokens else [(row[0], *row[2:]) for row in rows]


def _facts(run: dict[str, Any]) -> list[tuple[str, str]]:
    numbers = tuple(step["step"] for step in run["steps"])
    there = listed(numbers).replace("step", run["unit"])
    facts = [("steps", f"{len(numbers)} checkpoint{'s'[: len(numbers) != 1]}: {there}")]
    facts += [
        ("WARNING", f"steps {', '.join(map(str, same))} hold the same weights")
        for same in run["identical_steps"]
    ]
    if run["merges"]:
        facts.append(("merges", f"{len(run['merges'])} recorded"))
    if run["described_step"] is None:
        return [("layout", "no checkpoint can be read"), *facts]
    also = f" (also readable as {', '.join(run['also_readable_as'])})"
    return [
        ("layout", run["layout"] + (also if run["also_readable_as"] else "")),
        ("family", f"{run['family']}, {run['layers']} layers"),
        *facts,
        *_model(run),
        *_accounts(run),
    ]


def _model(run: dict[str, Any]) -> list[tuple[str, str]]:
    facts = []
    if run["restarts"] is not None:
        facts.append(("restarts", f"{run['restarts']} before the last checkpoint"))
    if run["heads"]:
        heads = run["heads"]
        words = "{count} of size {size}, {kv_count} with keys and values"
        facts.append(("heads", words.format(**heads)))
    if run["adapters"]:
        found = run["adapters"]
        ranks, scales = (", ".join(f"{x:g}" for x in found[key]) for key in ("ranks", "scales"))
        words = f"{found['count']}, rank {ranks}"
        words += f", scale {scales}" if scales else ""
        unknown = found["without_scale"]
        facts.append(("adapters", words + (f", scale of {unknown} unknown" if unknown else "")))
    if run["base"]:
        facts.append(("base", run["base"]))
    if run["gradients"]:
        facts.append(("gradients", f"{run['gradients']} matrices"))
    return facts


def _accounts(run: dict[str, Any]) -> list[tuple[str, str]]:
    """Number of tensors per class, in one line; and earlier numbers with their last step."""
    later, lines = run["accounts"][-1]["account"], []
    for one in reversed(run["accounts"][:-1]):
        if one["account"] != later:
            until = f"until {run['unit']} {one['described_step']}"
            lines.append(f"{account_text(one['account'])} ({until})")
        later = one["account"]
    lines = [account_text(run["account"]), *lines[:MOST]]
    return [("tensors", lines[0]), *(("", line) for line in lines[1:])]


def account_text(account: dict[str, int]) -> str:
    """Number of tensors, in total and per class."""
    counts = Counter(account)
    parts = [
        f"{counts[kind]} {words[counts[kind] > 1]}"
        for kind, words in CLASSES.items()
        if counts[kind]
    ]
    understood = ", ".join(parts) or "none understood"
    return f"{counts.total()}: {understood}; {counts['not understood']} not understood"
